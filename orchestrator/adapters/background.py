"""Going on without a terminal: what a daemon does to its own process."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

_KEYBOARD = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
_MAX_FD = 1 << 20


def fork_away(log: Path, keep: Iterable[int] = ()) -> int | None:
    """Go on twice. None in the new process: its own session, no terminal, output into ``log``; of
    the other descriptors it has those of ``keep``.

    Elsewhere a descriptor that reaches its end when the new process does. Signals that the terminal
    sends in between reach only the old process, whose handlers the new one inherits. No thread
    may exist. Raises ``OSError``.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    alive, held = os.pipe()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _KEYBOARD)
    try:
        child = os.fork()
        if child == 0:
            os.setsid()
            if os.fork() != 0:
                os._exit(0)
            _settle_descriptors(output, [held, *keep])
            return None
        os.waitpid(child, 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(held)
    os.close(output)
    return alive


def _settle_descriptors(output: int, kept: Iterable[int]) -> None:
    """Keep no descriptor but ``kept`` and the standard ones; forget signals meant for others."""
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for fd, source in enumerate((nowhere, output, output)):
        os.dup2(source, fd)
    closed_up_to = 3
    for fd in sorted(kept):
        os.closerange(closed_up_to, fd)
        closed_up_to = fd + 1
    os.closerange(closed_up_to, _MAX_FD)
    for number in _KEYBOARD:
        signal.signal(number, signal.signal(number, signal.SIG_IGN))
