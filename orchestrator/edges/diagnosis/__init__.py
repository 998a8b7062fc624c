"""Logs from disk for :mod:`orchestrator.core.diagnosis`: whose they are, and what is in them."""
