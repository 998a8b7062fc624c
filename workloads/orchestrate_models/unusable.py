"""Settings that cannot be used here."""

from __future__ import annotations


class UnusableSettings(ValueError):
    """Found before anything is measured; the message says which setting, and why."""
