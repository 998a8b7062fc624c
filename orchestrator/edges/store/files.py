"""Files that appear complete or not at all, readable by their owner only."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path


def make_private_dir(path: Path) -> Path:
    """Create ``path`` and its missing parents with mode 0700; an existing one keeps its mode."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    return path


def sync_dir(path: Path) -> None:
    """Make the names in directory ``path`` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` (mode 0600): readers see the old file, or all of the new one.

    The directory must exist. Raises ``OSError``; ``path`` is then unchanged, and no temporary file
    stays.
    """
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_dir(path.parent)


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """``write_atomic`` of one JSON object, indented for people. Only finite numbers."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text.encode("utf-8", "backslashreplace") + b"\n")
