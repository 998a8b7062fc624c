"""Verbs for suites of runs."""
