"""Verbs for what watches runs."""
