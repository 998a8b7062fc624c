"""Calls at precise times: the kernel's timer where there is one, else a loop that looks again.

An event loop's own timers wake up to a millisecond late, because epoll counts in milliseconds.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
from collections.abc import Callable, Sequence
from time import monotonic

# Of the manual pages of timerfd_create and timerfd_settime.
_CLOCK_MONOTONIC, _TFD_NONBLOCK, _TFD_CLOEXEC, _TFD_TIMER_ABSTIME = 1, 0o4000, 0o2000000, 1
# Nearer than what it takes to set a timer.
_AT_ONCE_S = 30e-6
# Without a kernel timer: from then on the loop looks in each turn.
_SPIN_S = 1.5e-3


class _TimeSpec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _TimerSpec(ctypes.Structure):
    _fields_ = (("interval", _TimeSpec), ("value", _TimeSpec))


class KernelTimer:
    """One timerfd that calls back when a time of the monotonic clock has come."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        flags = _TFD_NONBLOCK | _TFD_CLOEXEC
        self._fd: int = self._libc.timerfd_create(_CLOCK_MONOTONIC, flags)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop, self._call = loop, call
        self._spec = _TimerSpec()
        loop.add_reader(self._fd, self._ring)

    def set(self, at_s: float) -> None:
        """Call back then; a time that was set before is forgotten."""
        seconds = int(at_s)
        self._spec.value.seconds = seconds
        self._spec.value.nanoseconds = max(1, int((at_s - seconds) * 1e9))
        self._libc.timerfd_settime(self._fd, _TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None)

    def close(self) -> None:
        self._loop.remove_reader(self._fd)
        os.close(self._fd)

    def _ring(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:  # it was set anew between the wake-up and here
            return
        self._call()


class LoopTimer:
    """The same where the kernel has no timerfd."""

    def __init__(self, loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
        self._loop, self._call = loop, call
        self._at_s = 0.0
        self._handle: asyncio.Handle | None = None

    def set(self, at_s: float) -> None:
        """Call back then; a time that was set before is forgotten."""
        self.close()
        self._at_s = at_s
        self._handle = self._loop.call_at(at_s - _SPIN_S, self._look)

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()

    def _look(self) -> None:
        if monotonic() >= self._at_s:
            self._call()
        else:
            self._handle = self._loop.call_soon(self._look)


def make_timer(
    loop: asyncio.AbstractEventLoop, call: Callable[[], None]
) -> KernelTimer | LoopTimer:
    """The best that there is here. Times are those of ``time.monotonic``."""
    return KernelTimer(loop, call) if platform.system() == "Linux" else LoopTimer(loop, call)


class Pacer:
    """Calls ``issue(number, at_s)`` for each of ``times_s``, ascending, when it has come."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        times_s: Sequence[float],
        issue: Callable[[int, float], None],
    ) -> None:
        self._loop, self._times_s, self._issue = loop, times_s, issue
        self._next = 0
        self._timer = make_timer(loop, self.look)
        self.next_s = times_s[0] if times_s else float("inf")

    @property
    def over(self) -> bool:
        return self._next >= len(self._times_s)

    @property
    def issued(self) -> int:
        return self._next

    def look(self) -> None:
        """Issue what is due, and set the timer for what follows. May be called at any time."""
        while not self.over and self.next_s - monotonic() < _AT_ONCE_S:
            number, at_s = self._next, self.next_s
            while monotonic() < at_s:
                pass
            self._next += 1
            left = self._times_s[self._next : self._next + 1]
            self.next_s = left[0] if left else float("inf")
            self._issue(number, at_s)
        if not self.over:
            self._timer.set(self.next_s)

    def stop(self) -> None:
        """Issue nothing more."""
        self._times_s = self._times_s[: self._next]
        self.next_s = float("inf")
        self._timer.close()
