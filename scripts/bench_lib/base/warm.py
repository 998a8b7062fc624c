"""CPU time that a warm process spent for commands: its forks are not the client's children."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_REAPED_S = 1.0


def spent_s(home: Path) -> tuple[float, float]:
    """(CPU time, user time) of the home's warm processes and of all forks that ended, in ticks of
    10 ms.
    """
    whole = user = 0.0
    for process in _processes(home):
        _wait_for_reaping(process)
        with contextlib.suppress(OSError):
            fields = Path(process, "stat").read_text().rpartition(")")[2].split()
            utime, stime, cutime, cstime = map(int, fields[11:15])
            user += (utime + cutime) * _TICK_S
            whole += (utime + stime + cutime + cstime) * _TICK_S
    return whole, user


def _processes(home: Path) -> Iterator[Path]:
    for lock in Path(home, "warm").glob("*.lock"):
        socket = os.fsencode(lock.with_suffix(""))
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = Path(process, "cmdline").read_bytes().split(b"\0")
                parent = Path(process, "stat").read_text().rpartition(")")[2].split()[1]
                if socket in words and parent == "1":  # its forks have its words, too
                    yield process


def _wait_for_reaping(process: Path) -> None:
    """Until forks that ended are counted."""
    deadline = time.monotonic() + _REAPED_S
    children = Path(process, "task", process.name, "children")
    with contextlib.suppress(OSError):
        while children.read_text().strip() and time.monotonic() < deadline:
            time.sleep(_TICK_S / 10)
