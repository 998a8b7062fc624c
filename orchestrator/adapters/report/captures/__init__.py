"""Captures of a run as sections of its report, summaries and figures."""
