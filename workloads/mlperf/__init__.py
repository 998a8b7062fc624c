"""Batch inference over a set of prompts, MLPerf-style: `run.py` is the script."""
