"""Bundles of a migration: what a suite's run proved, as one file that travels; the way back."""
