"""Acceptance test of GPUs and network: `acceptance.py` is the script, the folders are its parts."""
