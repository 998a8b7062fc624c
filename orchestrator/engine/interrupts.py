"""Signals as events: once stops gracefully, twice kills now, a third time leaves.

A closed terminal (SIGHUP) asks for nothing: the run goes on, only nobody looks at it any more.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from orchestrator.core.events import StopKind

STOPPING = (signal.SIGINT, signal.SIGTERM)
LEAVE_AT = 3

Handler = Callable[[int, FrameType | None], None]


class Abandoned(BaseException):
    """The user asked a third time: leave now, without confirming anything."""


class Interrupts:
    """What signals ask of a run, from before its folder exists until its result is written.

    A request that comes when no engine runs is kept for the one that comes. ``on_hangup`` is
    called as a signal handler and must not wait for anything; ``on_suspend`` is called by the
    event loop and stops this process.
    """

    def __init__(
        self,
        *,
        on_hangup: Callable[[], None] | None = None,
        on_suspend: Callable[[], None] | None = None,
    ) -> None:
        self.on_hangup = on_hangup
        self.on_suspend = on_suspend
        self.asked: list[signal.Signals] = []
        self._deliver: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While inside, signals end neither the process nor anything that it is about to do."""
        handlers: dict[signal.Signals, Handler] = dict.fromkeys(STOPPING, self._on_stop)
        handlers |= {signal.SIGHUP: self._on_hangup, signal.SIGTSTP: self._on_suspend}
        before = {number: signal.signal(number, call) for number, call in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def handled(
        self, stop: Callable[[StopKind, str], None], leave: Callable[[], None]
    ) -> Iterator[None]:
        """While inside, requests are passed on in the running loop, those from before first:
        ``stop`` with how urgently, and at the third ``leave``.
        """
        told = 0

        def deliver() -> None:
            nonlocal told
            while told < len(self.asked):
                by = self.asked[told].name
                told += 1
                if told >= LEAVE_AT:
                    leave()
                else:
                    stop(StopKind.GRACEFUL if told == 1 else StopKind.KILL, by)

        self._loop, self._deliver = asyncio.get_running_loop(), deliver
        try:
            deliver()
            yield
        finally:
            self._loop = self._deliver = None

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        del frame
        if len(self.asked) >= LEAVE_AT:
            # Leaving did not work either: whatever hangs must not hold the user.
            os._exit(128 + number)
        self.asked.append(signal.Signals(number))
        if self._loop is not None and self._deliver is not None:
            self._loop.call_soon_threadsafe(self._deliver)

    def _on_hangup(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.on_hangup is not None:
            self.on_hangup()

    def _on_suspend(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self._loop is not None and self.on_suspend is not None:
            self._loop.call_soon_threadsafe(self.on_suspend)
        else:
            os.kill(os.getpid(), signal.SIGSTOP)
