"""Schedules: which nights are due, what to start, and what is missing. Pure."""
