"""Files that appear complete or not at all, readable by their owner only unless asked."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from orchestrator.core.base.errors import UsageError


def make_private_dir(path: Path) -> Path:
    """Create ``path`` and its missing parents with mode 0700; an existing one keeps its mode.

    Raises :class:`UsageError` where another user could read or replace what would be kept there.
    """
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)
    for folder in (path, path.parent):
        _refuse_strangers(folder)
    for folder in path.resolve().parents:
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise _unsafe(folder, "everybody may write there")
    return path


def _refuse_strangers(folder: Path) -> None:
    """The folder, and a link in its place, belong to this user or to root."""
    for status in (folder.lstat(), folder.stat()):
        if status.st_uid not in {0, os.geteuid()}:
            raise _unsafe(folder, f"it belongs to user id {status.st_uid}")


def _unsafe(folder: Path, why: str) -> UsageError:
    return UsageError(
        "not a place for files of yours",
        id="OR-STORE-011",
        where=folder,
        why=why,
        remedy="let ORCHESTRATE_HOME name a folder that is yours alone",
    )


def sync_dir(path: Path) -> None:
    """Make the names in directory ``path`` durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Put ``content`` at ``path``: readers see the old file, or all of the new one. What is not
    ``durable`` may be missing or old after a power cut.

    The directory must exist. Raises ``OSError``; ``path`` is then unchanged, and no temporary file
    stays.
    """
    import tempfile  # commands that only read begin sooner

    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            if durable:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_dir(path.parent)


def write_json(path: Path, value: Mapping[str, object]) -> None:
    """``write_atomic`` of one JSON object, indented for people. Only finite numbers."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, text.encode("utf-8", "backslashreplace") + b"\n")
