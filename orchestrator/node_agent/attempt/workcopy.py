"""An attempt's own copy of the code: scripts write beside their files, and snapshots are shared."""

from __future__ import annotations

import os
import shutil

from orchestrator.node_agent.code.snapshot_dir import is_shared


def copy_code(snapshot: str, work: str) -> None:
    """Copy the tree with everything writable by its owner; links inside the tree stay links, and
    folders that it shares with another snapshot become its own.
    """
    _copy_folder(snapshot, work, os.path.dirname(snapshot))


def _copy_folder(folder: str, work: str, snapshots: str) -> None:
    for above, folders, files in os.walk(folder):
        target = os.path.join(work, os.path.relpath(above, folder))
        os.makedirs(target, 0o700, exist_ok=True)
        links = [name for name in folders if os.path.islink(os.path.join(above, name))]
        for name in files + links:
            source = os.path.join(above, name)
            if is_shared(source, snapshots):
                _copy_folder(source, os.path.join(target, name), snapshots)
            else:
                _copy(source, os.path.join(target, name))


def _copy(source: str, target: str) -> None:
    shutil.copyfile(source, target, follow_symlinks=False)
    if not os.path.islink(target):
        os.chmod(target, 0o700 if os.stat(source).st_mode & 0o100 else 0o600)
