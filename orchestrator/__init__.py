"""Run multi-GPU jobs across machines that are reachable over plain SSH."""

__version__ = "0.1.0"
