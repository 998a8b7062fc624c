"""Conversations, generated or from a file, and the rows that are trained on."""
