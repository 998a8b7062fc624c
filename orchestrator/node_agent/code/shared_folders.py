"""What a new snapshot takes over of an earlier one: folders as they are, files by hard links.

A folder in which nothing changed is a link to the one that the earlier snapshot has, so that a
change among 50,000 files touches a few of them. Such links are absolute, which links of the user's
never are. They do not chain: what is itself a link is taken over as it is. ``.orchestrate/shares``
names the snapshots that folders are shared with; while it is there, so are they.

Only code that runs in a copy of its own is changed this way: a program that asks where it really
lies must not find itself in an earlier snapshot.
"""

from __future__ import annotations

import os

from orchestrator.node_agent.code.complete_snapshots import RESERVED
from orchestrator.node_agent.code.node_manifest import folders_of
from orchestrator.node_agent.code.snapshot_dir import is_shared, link_or_copy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

# Few files are linked as quickly as they are told apart by folders.
SHARE_FROM = 512
# With more, finding out whether all are there would cost what sharing saves.
MAX_SHARES = 8


class TakeOver:
    """Fills the empty ``root`` with what ``base`` has but for the ``touched`` paths.

    ``share``: folders as a whole, where nothing in them is touched. Raises ``OSError``.
    """

    def __init__(self, base: str, root: str, touched: AbstractSet[str], *, share: bool) -> None:
        self.shares: set[str] = set()
        self._base = base
        self._snapshots = os.path.dirname(base)
        self._root = root
        self._touched = touched
        self._opened = {RESERVED, *folders_of(touched)}
        self._share = share

    def run(self) -> None:
        pending = [""]
        while pending:
            folder = pending.pop()
            with os.scandir(f"{self._base}/{folder}") as entries:
                for entry in entries:
                    path = folder + entry.name
                    if path not in self._touched and not _is_own(path) and self._take(entry, path):
                        pending.append(path + "/")

    def _take(self, entry: os.DirEntry[str], path: str) -> bool:
        """Whether it is a folder whose entries have to be taken one by one."""
        target = f"{self._root}/{path}"
        shared = is_shared(entry.path, self._snapshots)
        if entry.is_symlink() and not shared:
            os.symlink(os.readlink(entry.path), target)
        elif not shared and not entry.is_dir(follow_symlinks=False):
            link_or_copy(entry.path, target)
        elif self._share and path not in self._opened:
            self._share_folder(os.readlink(entry.path) if shared else entry.path, target)
        else:
            if path != RESERVED:
                os.mkdir(target, 0o755)
            return True
        return False

    def _share_folder(self, source: str, target: str) -> None:
        os.symlink(source, target)
        self.shares.add(os.path.relpath(source, self._snapshots).partition("/")[0])


def _is_own(path: str) -> bool:
    """Whether the node keeps this for itself, beside the kit."""
    return path.startswith(RESERVED + "/") and path.split("/", 2)[1] != "kit"
