"""Schedules and records: pure, imports nothing of the other folders."""
