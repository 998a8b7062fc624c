"""Logs from disk for ``core.diagnosis``: whose they are, and what is in them."""
