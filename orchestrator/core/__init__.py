"""Decisions: frozen data and pure functions. Standard library only, no I/O, no clock, no
randomness.
"""
