"""Small JSON values by what they were made from: one file each, the oldest forgotten first."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orchestrator
from orchestrator.adapters.store.atomic_files import make_private_dir, write_atomic
from orchestrator.core.base.errors import UsageError

MOST = 64
MAX_BYTES = 8 << 20


class JsonCache:
    """The entries of one folder, at most ``most``, made and read by one user.

    What cannot be read or written, or was put there by somebody else, is not there: nothing raises.
    """

    def __init__(self, folder: Path, most: int = MOST) -> None:
        self._folder = folder
        self._most = most

    def find(self, key: Mapping[str, Any]) -> Any:
        """What was kept for exactly this ``key``; None if nothing was."""
        try:
            entry = json.loads(_read_own(self._path(key)))
        except (OSError, ValueError, RecursionError):
            return None
        same = isinstance(entry, dict) and entry.get("key") == key
        return entry.get("value") if same else None

    def keep(self, key: Mapping[str, Any], value: Any) -> None:
        """Remember ``value``, unless it is too large, and forget the oldest of too many."""
        content = json.dumps({"key": key, "value": value}, allow_nan=False).encode()
        if len(content) > MAX_BYTES:
            return
        with suppress(OSError, UsageError):
            make_private_dir(self._folder)
            write_atomic(self._path(key), content, durable=False)
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        files = list(self._folder.glob("*.json"))
        if len(files) > self._most:
            files.sort(key=lambda path: path.stat().st_mtime)
            for path in files[: -self._most]:
                path.unlink(missing_ok=True)

    def _path(self, key: Mapping[str, Any]) -> Path:
        text = json.dumps(key, sort_keys=True, ensure_ascii=True)
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


@functools.cache
def code_stamp(folders: tuple[str, ...]) -> list[list[Any]]:
    """Name, size and time of change of this package's code in ``folders``: with it in the key, a
    change of the code makes every entry another one's. Looked at once: this process runs that code.
    """
    root = Path(orchestrator.__file__).parent
    files = [path for folder in folders for path in sorted((root / folder).glob("*.py"))]
    stats = [(path.name, path.stat()) for path in files]
    return [[name, status.st_size, status.st_mtime_ns] for name, status in stats]


def _read_own(path: Path) -> bytes:
    """The file's content, if it is this user's. Raises ``OSError``."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid not in {0, os.geteuid()}:
            raise PermissionError(f"{path} is not a file of this user")
        return file.read(MAX_BYTES)
