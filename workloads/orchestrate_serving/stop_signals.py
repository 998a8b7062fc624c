"""How a rank that serves until a signal comes hears of it."""

from __future__ import annotations

import signal
from typing import NoReturn

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stopped(Exception):
    """A signal asked this rank to end."""


def raise_on_signals() -> None:
    """The first signal raises :class:`Stopped` in the main thread."""
    for number in SIGNALS:
        signal.signal(number, _stop)


def _stop(*_: object) -> NoReturn:
    """Once: what comes while servers are being stopped changes nothing."""
    ignore_signals()
    raise Stopped


def ignore_signals() -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
