"""What a snapshot's folder says of itself: its manifest, and what was verified since this boot."""

from __future__ import annotations

import json
import os

from orchestrator.node_agent.base.agent_errors import BAD_REQUEST, AgentFault
from orchestrator.node_agent.base.node_layout import DIGEST, check_name
from orchestrator.node_agent.code.complete_snapshots import (
    NO_BOOT_ID,
    boot_name,
    count_complete,
    marker,
    own_file,
)
from orchestrator.node_agent.code.node_manifest import digest_of
from orchestrator.node_agent.code.snapshot_dir import is_sealed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from orchestrator.node_agent.base.node_layout import NodeLayout

FEW_FILES = 4096
ADDED = "added-"  # what is new after the base that follows, while it is filled


def mark_verified(root: str) -> None:
    """Nothing is missing. The marker holds how many files there are."""
    if boot_name() == NO_BOOT_ID:
        os.sync()
    with open(own_file(root, "manifest"), "rb") as file:
        data = file.read()
    files = data.count(b'","f",') + data.count(b'","x",')
    write_own(marker(root), b"%d" % files)


def unmark(root: str) -> None:
    """Something is missing after all."""
    for name in os.listdir(own_file(root, "")):
        if name.startswith("verified-"):
            os.unlink(own_file(root, name))


def write_own(path: str, data: bytes) -> None:
    """Write through a second name; the snapshot's lock is held."""
    with open(path + ".new", "wb") as file:
        file.write(data)
    os.rename(path + ".new", path)


def manifest_bytes(root: str, digest: str) -> bytes:
    """The manifest in ``root``. Raises :class:`AgentFault` if it is not the one of ``digest``."""
    try:
        with open(own_file(root, "manifest"), "rb") as file:
            data = file.read()
    except FileNotFoundError:
        data = b""
    if digest_of(data) != digest:
        raise AgentFault(BAD_REQUEST, "offer the snapshot first: its manifest is not here")
    return data


def added_bytes(root: str, base: str) -> bytes:
    """The manifest of what is new after ``base``. Raises :class:`AgentFault`."""
    try:
        with open(own_file(root, ADDED + check_name(base, "digest", DIGEST)), "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise AgentFault(BAD_REQUEST, "offer the change first: it is not here") from None


def store_name(layout: NodeLayout) -> str:
    """What tells the place of these snapshots from all others, whichever node looks at it; ``""``
    where it cannot be kept.
    """
    path = os.path.join(layout.root, "store")
    try:
        if not os.path.exists(path):
            _name_store(path)
        with open(path, encoding="ascii") as file:
            return check_name(file.read(64), "store")
    except (OSError, ValueError, AgentFault):
        return ""


def _name_store(path: str) -> None:
    """The first one gives the name, also of several nodes at once."""
    name = os.urandom(16).hex()
    own = f"{path}.{name}"
    write_own(own, name.encode())
    try:
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        os.unlink(own)


def is_believed(layout: NodeLayout, digest: str, check: bool = False, copied: bool = False) -> bool:
    """Whether the snapshot is complete: in constant time; with ``check`` by a look at each of its
    files, as is always done for root's small ones, which jobs may have edited, unless all of them
    ran in copies (``copied``; see ``workcopy.py``).
    """
    files = count_complete(layout.snapshots, check_name(digest, "digest", DIGEST))
    if files is None:
        return False
    if check or (not copied and os.geteuid() == 0 and files <= FEW_FILES):
        return _is_untouched(layout.snapshot(digest), digest)
    return True


def _is_untouched(root: str, digest: str) -> bool:
    """Whether every file is sealed, and every link as it was made."""
    try:
        for path, kind, value, *_ in json.loads(manifest_bytes(root, digest))["entries"]:
            if kind == "l":
                sound = os.readlink(f"{root}/{path}") == value
            else:
                sound = is_sealed(os.lstat(f"{root}/{path}"), value, kind == "x")
            if not sound:
                return False
    except (OSError, AgentFault):
        return False
    return True
