"""An attempt's own copy of the code: scripts write beside their files, and snapshots are shared.

What is copied must be as it was sent. Nobody but root can have edited it without making it writable
first, and whoever did is found here, where it would begin to matter.
"""

from __future__ import annotations

import os
import shutil
import stat

from orchestrator.node_agent.base.agent_errors import DAMAGED, AgentFault
from orchestrator.node_agent.code.complete_snapshots import RESERVED
from orchestrator.node_agent.code.snapshot_dir import is_sealed, is_shared
from orchestrator.node_agent.code.snapshot_marks import unmark


def copy_code(snapshot: str, work: str) -> None:
    """Copy the tree with everything writable by its owner; links inside the tree stay links, and
    folders that it shares with another snapshot become its own.

    Raises :class:`AgentFault` for a file that was edited; the next sync then looks at all of them.
    """
    snapshots = os.path.dirname(snapshot)
    try:
        _copy_folder(snapshot, work, snapshots)
    except EditedFile as edited:
        path = os.path.relpath(str(edited), snapshots)
        unmark(os.path.join(snapshots, path.partition(os.sep)[0]))
        unmark(snapshot)
        why = "was edited or damaged after it arrived; run the command again: it is then sent anew"
        raise AgentFault(DAMAGED, f"{edited} {why}") from None


class EditedFile(Exception):
    """The file at this path is not sealed any more."""


def _copy_folder(folder: str, work: str, snapshots: str) -> None:
    own = os.path.join(folder, RESERVED)
    for above, folders, files in os.walk(folder):
        target = os.path.join(work, os.path.relpath(above, folder))
        os.makedirs(target, 0o700, exist_ok=True)
        links = [name for name in folders if os.path.islink(os.path.join(above, name))]
        for name in files + links:
            source = os.path.join(above, name)
            if is_shared(source, snapshots):
                _copy_folder(source, os.path.join(target, name), snapshots)
            else:
                _copy(source, os.path.join(target, name), sealed=above != own)


def _copy(source: str, target: str, sealed: bool) -> None:
    """A file of the user's is ``sealed``; what the node keeps beside them is not."""
    status = os.lstat(source)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
        return
    executable = bool(status.st_mode & stat.S_IXUSR)
    if sealed and not is_sealed(status, status.st_size, executable):
        raise EditedFile(source)
    shutil.copyfile(source, target)
    os.chmod(target, 0o700 if executable else 0o600)
