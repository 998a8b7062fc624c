"""Ending the processes that stay warm."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

from orchestrator.adapters.private_sockets import take_lock
from orchestrator.adapters.warm.client import folder

END_S = 2.0
_LOOK_S = 0.01


def end_warm_processes(environ: Mapping[bytes, bytes]) -> int:
    """How many ended, of this user's; commands that they began go on. Raises nothing."""
    where = folder(environ)
    if where is None:
        return 0
    locks = list(Path(os.fsdecode(where)).glob("*.lock"))
    running = [path for path in locks if _is_held(path)]
    deadline = time.monotonic() + END_S
    while any(map(_is_held, running)) and time.monotonic() < deadline:
        for path in running:
            with contextlib.suppress(OSError):  # one that begins has no socket yet
                path.with_suffix("").unlink()  # which is what they wait for
        time.sleep(_LOOK_S)
    return sum(not _is_held(path) for path in running)


def _is_held(path: Path) -> bool:
    """Whether a process lives that has this lock: it holds it until it ends."""
    try:
        with path.open("rb") as lock:
            return not take_lock(lock.fileno())
    except OSError:
        return False
