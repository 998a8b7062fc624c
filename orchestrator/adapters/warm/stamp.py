"""Whether the code that a process has loaded is still that on the disk."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import orchestrator

Stamp = list[tuple[int, int, int] | None]


def code_files() -> list[str]:
    """What the command is made of: each file of ours, and of the interpreter and its packages what
    is new whenever they are.
    """
    root = Path(orchestrator.__file__).parent
    folders = [entry for entry in sys.path if entry and Path(entry).is_dir()]
    marks = [str(Path(sys.prefix, "pyvenv.cfg")), sys.executable, os.__file__, *folders]
    return [*sorted(str(path) for path in root.rglob("*.py")), *marks]


def read_stamp(files: list[str]) -> Stamp:
    """Inode, size and time of change of each file; None for one that is not there."""
    return [_stamp_of(name) for name in files]


def _stamp_of(name: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(name)  # noqa: PTH116 - of a thousand files, while a command waits
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
