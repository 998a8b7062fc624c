"""Signals as events: once stops gracefully, twice kills now, a third time leaves.

SIGHUP counts as SIGTERM here: the run ends cleanly rather than being left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Iterator

from orchestrator.core.events import StopKind

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Abandoned(BaseException):
    """The user asked a third time: leave now, without confirming anything."""


@contextlib.contextmanager
def handled(stop: Callable[[StopKind, str], None], leave: Callable[[], None]) -> Iterator[None]:
    """While inside, signals call ``stop`` with how urgently, and at the third ``leave``."""
    loop = asyncio.get_running_loop()
    count = 0

    def on_signal(number: signal.Signals) -> None:
        nonlocal count
        count += 1
        if count == 1:
            stop(StopKind.GRACEFUL, _name(number))
        elif count == 2:
            stop(StopKind.KILL, _name(number))
        else:
            leave()

    for number in HANDLED:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield
    finally:
        for number in HANDLED:
            loop.remove_signal_handler(number)


def _name(number: signal.Signals) -> str:
    return "SIGTERM" if number is signal.SIGHUP else number.name
