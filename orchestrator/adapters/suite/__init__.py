"""Runs of suites on disk: their log, their summary, their archive, documents made of archives."""
