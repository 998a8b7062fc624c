"""Verbs that start something on nodes."""
