"""A snapshot that is offered as a change of one that is here: what it costs depends on the change.

    .partial-<digest>/.orchestrate/added-<base>    a manifest of what is new: pushes count by it

Everything else is taken over of the base, which is believed as an unchanged snapshot is. The file
comes last: while it is not there, the whole is offered, read and verified instead.
"""

from __future__ import annotations

import os

from orchestrator.node_agent.base.node_layout import DIGEST, check_name
from orchestrator.node_agent.code.complete_snapshots import SHARES, marker, own_file, shared_with
from orchestrator.node_agent.code.manifest_change import ManifestChange, split_rows
from orchestrator.node_agent.code.node_manifest import NodeManifest
from orchestrator.node_agent.code.shared_folders import MAX_SHARES, SHARE_FROM, TakeOver
from orchestrator.node_agent.code.snapshot import (
    answer,
    check_room,
    finish,
    partial_root,
    working_on,
)
from orchestrator.node_agent.code.snapshot_dir import Tree
from orchestrator.node_agent.code.snapshot_marks import (
    ADDED,
    added_bytes,
    is_believed,
    manifest_bytes,
    write_own,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestrator.node_agent.base.node_layout import NodeLayout


def offer_change(layout: NodeLayout, digest: str, base: str, change: bytes) -> dict[str, Any]:
    """Take over what ``base`` has, and say what of the ``change`` is missing, by the contents of
    its added entries; as ``offer_snapshot`` does for a whole manifest.

    ``{"have": False}`` alone: the whole has to be offered. Raises :class:`AgentFault`.
    """
    with working_on(layout, digest):
        if is_believed(layout, digest):
            return {"have": True, "digest": digest}
        root = partial_root(layout, digest)
        if not _is_begun(layout, digest, base) and not _begin(layout, digest, base, change):
            return {"have": False, "digest": digest}
        tree = Tree(root, NodeManifest(added_bytes(root, base)))
        missing = tree.missing()
        check_room(layout, tree.manifest, missing)
        return {"have": finish(layout, digest, tree, missing), **answer(digest, tree, missing)}


def _is_begun(layout: NodeLayout, digest: str, base: str) -> bool:
    """Whether the same change was offered before, since this boot."""
    root = partial_root(layout, digest)
    added = own_file(root, ADDED + check_name(base, "digest", DIGEST))
    return os.path.exists(marker(root, "begun")) and os.path.exists(added)


def _begin(layout: NodeLayout, digest: str, base: str, packed: bytes) -> bool:
    """Make the new folder out of the base's; whether that was possible."""
    root, source = partial_root(layout, digest), layout.snapshot(base)
    if os.path.isdir(root) or os.path.isdir(layout.snapshot(digest)):
        return False  # the whole is being sent, or is to be repaired
    if not is_believed(layout, base):
        return False
    known = manifest_bytes(source, base)
    change = ManifestChange(known, packed, digest)
    os.makedirs(own_file(root, ""), 0o700)
    write_own(own_file(root, "manifest"), change.manifest)
    share = len(split_rows(known)) >= SHARE_FROM and len(shared_with(source)) < MAX_SHARES
    taken = TakeOver(source, root, change.touched, share=share)
    try:
        taken.run()
    except FileNotFoundError:  # somebody removes the base
        return False
    tree = Tree(root, change.added)
    tree.prepare()
    tree.adopt(source, change.find_contents(known))
    write_own(own_file(root, SHARES), "\n".join(sorted(taken.shares)).encode())
    write_own(marker(root, "begun"), b"")
    write_own(own_file(root, ADDED + base), change.added.data)
    return True
