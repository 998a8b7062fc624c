"""What later runs could use again, and nobody did for long: found, measured, removed."""

from __future__ import annotations

import os
import shutil
import time

from orchestrator.node_agent.attempt.supervisor_state import supervisor_state
from orchestrator.node_agent.base.node_layout import AGENT, TRASH, NodeLayout
from orchestrator.node_agent.base.wire import read_field
from orchestrator.node_agent.code.complete_snapshots import shared_with

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

DAY_S = 86_400.0
# A run that is being prepared has used what it needs, and no supervisor names it yet.
YOUNG_S = 600.0
KINDS = ("snapshots", "environments", "agents")
BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's own is
MAX_ENTRIES = 5_000_000


def prune_caches(layout: NodeLayout, request: Mapping[str, Any]) -> dict[str, Any]:
    """Remove snapshots, environments and agents that nobody used for ``older_than_s``; with
    ``dry_run`` only count them. Answers ``caches``: kind -> ``entries``, ``bytes`` on the disk.

    What a living attempt uses stays however old it is, and so does what is younger than ten
    minutes. Entries that cannot be removed are not counted.
    """
    dry_run = read_field(request, "dry_run", bool, False)
    older_than_s = max(read_field(request, "older_than_s", float, 7 * DAY_S), YOUNG_S)
    with layout.locked("prune"):
        names = _in_use(layout)
        caches = {}
        for kind in KINDS:
            above = os.path.join(layout.root, kind)
            before = time.time() - older_than_s
            if kind == "snapshots":
                names |= _shared(above, set(_unused(above, names, before)))
            old = _unused(above, names, before)
            caches[kind] = _count(layout, old, remove=not dry_run)
        if not dry_run:
            _empty_trash(layout)
    return {"caches": caches}


def _in_use(layout: NodeLayout) -> set[str]:
    """Names that a living attempt refers to, and this agent's own directory."""
    names = {os.path.basename(AGENT)}
    for run, node in layout.known_runs():
        place = layout.run(run, node)
        for number in place.attempts():
            state = supervisor_state(place.attempt(number))
            if state and state.alive:
                names.update(str(state.record.get(key)) for key in ("snapshot", "agent"))
                names.update(map(str, state.record.get("environments", ())))
    return names


def _shared(above: str, unused: set[str]) -> set[str]:
    """What the snapshots that stay share folders with."""
    roots = (os.path.join(above, name) for name in os.listdir(above))
    return {name for root in roots if root not in unused for name in shared_with(root)}


def _unused(above: str, in_use: set[str], before: float) -> Iterator[str]:
    for name in sorted(os.listdir(above)):
        path = os.path.join(above, name)
        try:
            if name not in in_use and os.lstat(path).st_mtime <= before:
                yield path
        except OSError:  # somebody else has removed it
            continue


def _count(layout: NodeLayout, paths: Iterator[str], remove: bool) -> dict[str, int]:
    entries = size = 0
    for path in paths:
        held = disk_bytes(path)
        try:
            if remove:
                layout.discard(path)
        except OSError:
            continue
        entries += 1
        size += held
    return {"entries": entries, "bytes": size}


def disk_bytes(root: str) -> int:
    """What the tree takes on the disk. Files of several names in it count once."""
    total, seen, left = 0, set(), MAX_ENTRIES
    for folder, _, names in os.walk(root, onerror=None):
        for path in (folder, *(os.path.join(folder, name) for name in names)):
            left -= 1
            try:
                status = os.lstat(path)
            except OSError:
                continue
            if status.st_nlink == 1 or (status.st_dev, status.st_ino) not in seen:
                total += status.st_blocks * BLOCK_BYTES
            if status.st_nlink > 1:
                seen.add((status.st_dev, status.st_ino))
        if left <= 0:
            break
    return total


def _empty_trash(layout: NodeLayout) -> None:
    for name in os.listdir(layout.root):
        if name.startswith(TRASH):
            shutil.rmtree(os.path.join(layout.root, name), ignore_errors=True)
