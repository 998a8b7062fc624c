"""Time as a parameter, so that tests can choose it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks: deadlines use ``monotonic``, records use ``wall`` (both in seconds)."""

    def monotonic(self) -> float:
        """Never jumps; its zero means nothing."""

    def wall(self) -> float:
        """Seconds since the epoch."""


class SystemClock:
    """This machine's clocks."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()
