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

from orchestrator.core.run.events import StopKind

STOPPING = (signal.SIGINT, signal.SIGTERM)
LEAVE_AT = 3
LEAVE_WITHIN_S = 1.0


class Abandoned(BaseException):
    """The user asked a third time: leave now, without confirming anything."""


class Interrupts:
    """What signals ask of a run, from before its folder exists until its result is written.

    A request that comes when no engine runs is kept for the one that comes. As signal handlers are
    called, and must not wait for anything: ``on_hangup``, and ``on_over`` instead of everything
    else once there is nothing left to stop. By the event loop are called ``on_suspend``, which
    stops this process, and ``on_overdue``, which ends it when leaving takes long.
    """

    def __init__(self) -> None:
        self.on_hangup: Callable[[], None] | None = None
        self.on_over: Callable[[], None] | None = None
        self.on_suspend: Callable[[], None] | None = None
        self.on_overdue: Callable[[], None] | None = None
        self.asked: list[signal.Signals] = []
        self._deliver: Callable[[], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def listen(self) -> None:
        """From now on signals end neither this process nor what it is about."""
        for number in STOPPING:
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, self._on_hangup)
        signal.signal(signal.SIGTSTP, self._on_suspend)

    @staticmethod
    def ignore() -> None:
        """This process is about to exit, with its own code: no signal is worth another one."""
        for number in (*STOPPING, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)

    @contextmanager
    def handled(
        self, stop: Callable[[StopKind, str], None], leave: Callable[[], None]
    ) -> Iterator[None]:
        """While inside, requests are passed on in the running loop, those from before first:
        ``stop`` with how urgently, and at the third ``leave``.
        """
        loop = asyncio.get_running_loop()
        told = 0

        def deliver() -> None:
            nonlocal told
            while told < len(self.asked):
                by = self.asked[told].name
                told += 1
                if told >= LEAVE_AT:
                    leave()
                    # Links to nodes that do not answer would take longer to give back.
                    loop.call_later(LEAVE_WITHIN_S, self.on_overdue or (lambda: None))
                else:
                    stop(StopKind.GRACEFUL if told == 1 else StopKind.KILL, by)

        self._loop, self._deliver = loop, deliver
        try:
            deliver()
            yield
        finally:
            self._loop = self._deliver = None

    def ask(self, number: signal.Signals) -> None:
        """As if ``number`` had come."""
        self.asked.append(number)
        if self._loop is not None and self._deliver is not None:
            self._loop.call_soon_threadsafe(self._deliver)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.on_over is not None:
            self.on_over()
            return
        if len(self.asked) >= LEAVE_AT:
            # Leaving did not work either: whatever hangs must not hold the user.
            os._exit(128 + number)
        self.ask(signal.Signals(number))

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
