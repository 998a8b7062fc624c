"""Commands of ours as processes, also such that outlive this one: what no run may wait for."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import orchestrator
from orchestrator.adapters.store.layout import Layout

MAX_LOG_BYTES = 1 << 20


def start_in_background(
    layout: Layout, words: Sequence[str], log: Path, variables: Mapping[str, str] | None = None
) -> None:
    """Start ``orchestrate`` with ``words``, in milliseconds; what it prints is appended to ``log``.

    It has the environment of this process and ``variables``, so that no secret stands in its
    command line. Raises ``OSError``.
    """
    if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
        log.replace(log.with_suffix(".log.old"))
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    # Nothing waits for it: it belongs to init when this process has ended.
    os.posix_spawn(
        sys.executable,
        own_command(words),
        {**own_environment(layout), **(variables or {})},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


def own_command(words: Sequence[str] = ()) -> list[str]:
    """``orchestrate`` with these words, by the interpreter that runs."""
    return [sys.executable, "-P", "-m", "orchestrator", *words]


def own_environment(layout: Layout) -> dict[str, str]:
    """The variables of this process, and those by which its Python finds this package."""
    root = str(Path(orchestrator.__file__).resolve().parents[1])
    modules = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "ORCHESTRATE_HOME": str(layout.home), "PYTHONPATH": modules}
