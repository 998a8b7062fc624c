"""Verbs about runs that exist, and what came of them."""
