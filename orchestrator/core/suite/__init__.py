"""Suites: which steps run in which order, what they need, and what became of them. Pure."""
