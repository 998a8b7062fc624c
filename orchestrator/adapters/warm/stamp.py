"""Whether the code that a process has loaded is still that on the disk."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import orchestrator


class LoadedCode:
    """The files that this process reads its program from, as they are before it does."""

    def __init__(self) -> None:
        root = Path(orchestrator.__file__).parent
        folders = [entry for entry in sys.path if entry and Path(entry).is_dir()]
        # Of the interpreter and its packages: what is new whenever they are.
        self._marks = [str(Path(sys.prefix, "pyvenv.cfg")), sys.executable, os.__file__, *folders]
        self._files = [*(str(path) for path in root.rglob("*.py")), *self._marks]
        self._changed_at = _changes_of(self._files)

    def forget_unloaded(self) -> None:
        """What was not imported is read when a fork needs it. If nothing that was imported has
        changed by then, the two go together.
        """
        loaded = {getattr(module, "__file__", None) for module in sys.modules.values()}
        kept = [
            (name, at)
            for name, at in zip(self._files, self._changed_at, strict=True)
            if name in loaded or name in self._marks
        ]
        self._files, self._changed_at = [name for name, _ in kept], [at for _, at in kept]

    def is_current(self) -> bool:
        return _changes_of(self._files) == self._changed_at


def _changes_of(files: list[str]) -> list[int]:
    """When the inode of each file changed, which a write, a rename and a link do; 0 if none is
    there.
    """
    return [_change_of(name) for name in files]


def _change_of(name: str) -> int:
    try:
        return os.stat(name).st_ctime_ns
    except OSError:
        return 0
