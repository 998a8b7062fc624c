"""Verbs that ask machines what they are."""
