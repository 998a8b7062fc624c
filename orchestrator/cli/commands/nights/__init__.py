"""Verbs for what runs every night."""
