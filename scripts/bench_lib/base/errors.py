"""What stops a benchmark."""

from __future__ import annotations


class BenchError(Exception):
    """No figure could be had; the message says why and is meant for people."""


class Stopped(BaseException):
    """The user asked to stop: everything is cleaned up, and finished rounds are reported."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_code = 128 + signal_number
