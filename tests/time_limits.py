"""Limits in seconds that grow with what else the machine does.

A limit in a test is one that a quiet machine keeps with room to spare. Beside other programs the
same steps take longer, so a limit counts ``slowdown()`` times: how much longer a fixed piece of
work takes here and now than on a quiet machine. That is measured before a test when the last
measurement is old, and again before a limit counts as exceeded. Workers of one session share what
they measure.

Times that the product promises do not grow: the fixture ``measured`` records them, and
``scripts/bench promises`` holds what it recorded to the promise itself.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

WORK = (sys.executable, "-I", "-c", "import asyncssh")
QUIET_S = 0.3  # what WORK takes on a machine that does nothing else
MAX_SLOWDOWN = 20.0  # every wait has an end
FRESH_S = 30.0  # how long a measurement speaks for the next test
AT_ITS_END_S = 5.0  # the same, for whether a limit is exceeded
KEPT = 5  # load comes and goes: the largest of the last measurements counts
SPARE = 4.0  # the slowdown with which budgets of the product do not run out by mistake
Result = TypeVar("Result")
Words_co = TypeVar("Words_co", str, bytes, covariant=True)
Measured = Callable[[str, float, float], None]  # (what, seconds, promised seconds)
_measured: deque[tuple[float, float]] = deque([(0.0, 1.0)], maxlen=KEPT)  # (when, slowdown)
_shared: list[Path] = []  # at most one: lines of such pairs, by the clock of all processes


def slowdown() -> float:
    """How many times as long steps take as on a quiet machine, as far as known: 1 to 20."""
    return max(factor for _, factor in _measured)


def measure_slowdown(max_age_s: float = FRESH_S) -> float:
    """The same, measured now if the last measurement is older than that."""
    _take_shared()
    if time.monotonic() - _measured[-1][0] > max_age_s:
        factor = _time_work() / QUIET_S
        _measured.append((time.monotonic(), min(max(factor, 1.0), MAX_SLOWDOWN)))
        for path in _shared:
            with path.open("a") as file:
                file.write("{} {}\n".format(*_measured[-1]))
    return slowdown()


def share_measurements(path: Path) -> None:
    """Take what other processes measure from this file, and let them know."""
    _shared[:] = [path]


def _take_shared() -> None:
    for path in filter(Path.exists, _shared):
        for line in path.read_text().splitlines()[-KEPT:]:
            when, factor = map(float, line.split())
            if when > _measured[-1][0]:
                _measured.append((when, factor))


def _time_work() -> float:
    began = time.monotonic()
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(WORK, check=True, timeout=MAX_SLOWDOWN * QUIET_S)
    return time.monotonic() - began


def scaled(seconds: float) -> float:
    """What ``seconds`` on a quiet machine may take here."""
    return seconds * slowdown()


def budget(seconds: float) -> float:
    """A budget for the product, such as how long silence may last: short, as the test waits for
    its end, and longer only where the machine is so slow that it would run out by mistake.
    """
    return seconds * max(1.0, slowdown() / SPARE)


def exceeds(seconds: float, limit_s: float) -> bool:
    """Whether it took longer than the limit allows on this machine, now."""
    return seconds > limit_s and seconds > limit_s * measure_slowdown(AT_ITS_END_S)


def assert_within(what: str, seconds: float, limit_s: float) -> None:
    """Hold a time to a limit that grows with the machine's load."""
    allowed = f"limit {limit_s:g} s, here {scaled(limit_s):.1f} s"
    assert not exceeds(seconds, limit_s), f"{what}: {seconds:.2f} s, {allowed}"


class Deadline:
    """A moment by which something must have happened; it moves while the machine slows down."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._began = time.monotonic()

    def __str__(self) -> str:
        return f"{self._limit_s:g} s (here {scaled(self._limit_s):.0f} s)"

    @property
    def spent_s(self) -> float:
        return time.monotonic() - self._began

    @property
    def left_s(self) -> float:
        """Until it is worth a look whether it has passed; never negative."""
        return max(scaled(self._limit_s) - self.spent_s, 0.0)

    @property
    def passed(self) -> bool:
        return exceeds(self.spent_s, self._limit_s)


class Started(Protocol[Words_co]):
    """A process, as :class:`subprocess.Popen` and ``tests.forks`` start it."""

    def wait(self, timeout: float | None = None) -> int: ...

    def communicate(self, *, timeout: float | None = None) -> tuple[Words_co, Words_co]: ...


def wait_for_exit(process: Started[str] | Started[bytes], limit_s: float) -> int:
    """The exit code. Raises ``subprocess.TimeoutExpired``; the process is then left alone."""
    return _patiently(process.wait, limit_s)


def communicate(process: Started[Words_co], limit_s: float) -> tuple[Words_co, Words_co]:
    """All of stdout and stderr. Raises ``subprocess.TimeoutExpired``, likewise."""
    return _patiently(lambda left_s: process.communicate(timeout=left_s), limit_s)


def _patiently(wait: Callable[[float], Result], limit_s: float) -> Result:
    deadline = Deadline(limit_s)
    while True:
        try:
            return wait(deadline.left_s)
        except subprocess.TimeoutExpired:
            if deadline.passed:
                raise
