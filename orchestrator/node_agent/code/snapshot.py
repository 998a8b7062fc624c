"""Code snapshots on a node: ``offer`` asks for one, ``push`` brings what it lacks.

    snapshots/.partial-<digest>/   being filled; a cut push goes on here
    snapshots/<digest>/            complete, by one rename
      .orchestrate/manifest        its bytes have the digest that names the snapshot
      .orchestrate/begun-<boot>    what is sealed was verified while this kernel runs
      .orchestrate/verified-<boot> and nothing is missing
      ...                          the files, sealed (see ``tree.py``)

Every content is verified before it gets its name, the marker comes last, and the rename makes it a
snapshot: a cut at any byte leaves other snapshots as they are and this one to be continued.

Nothing is synced to disk. That would cost seconds for many small files, and guards against nothing
but a power cut, after which the kernel has another boot id: without a marker of this boot, every
file is read and verified again before the snapshot counts as present.
"""

from __future__ import annotations

import base64
import errno
import functools
import json
import os
import struct
import zlib
from contextlib import contextmanager

from orchestrator.node_agent.base.agent_errors import (
    BAD_REQUEST,
    BUSY,
    SYSTEM,
    AgentFault,
    shorten_value,
)
from orchestrator.node_agent.base.node_layout import DIGEST, check_name, lock_soon
from orchestrator.node_agent.base.wire import read_field
from orchestrator.node_agent.code.complete_snapshots import RESERVED, marker, own_file
from orchestrator.node_agent.code.node_manifest import NodeManifest, read_manifest
from orchestrator.node_agent.code.snapshot_dir import Tree
from orchestrator.node_agent.code.snapshot_marks import (
    ADDED,
    added_bytes,
    is_believed,
    manifest_bytes,
    mark_verified,
    store_name,
    unmark,
    write_own,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, Protocol

    from orchestrator.node_agent.base.node_layout import NodeLayout

    class Readable(Protocol):
        """A payload: ``b""`` at its end, ``EOFError`` if the link ends first."""

        def read(self, size: int = -1) -> bytes: ...


DISK_FULL = "OR-AGENT-DISK"

MAX_PART_BYTES = 8 * 1024 * 1024
MAX_BASES = 8
LOCK_WAIT_S = 60.0
# One piece of a content: index among the manifest's distinct contents, offset, length; big-endian.
PIECE = struct.Struct(">IQI")


def offer_snapshot(
    layout: NodeLayout,
    digest: str,
    manifest: bytes = b"",
    bases: Sequence[str] = (),
    *,
    check: bool = False,
    copied: bool = False,
    at_once: bool = False,
) -> dict[str, Any]:
    """Whether the snapshot is here, and if not, what it lacks.

    Without ``manifest`` (zlib of its bytes): ``{"have": bool}``, and if it is not, the ``base``
    among ``bases`` that a change may be offered of (see ``snapshot_change.py``), and the name of
    the ``store``, which nodes have in common that share a file system. With it, the files
    that one of the ``bases`` has are taken from there, and the answer is ``{"have": True}`` or
    ``{"have": False, "missing": bitmap}``: bit ``i % 8`` of byte ``i // 8`` for content ``i``, in
    zlib and base64.

    A complete snapshot answers in constant time; ``check`` looks at each of its files (``lstat``),
    as is always done for root's small ones, which jobs may have edited, but for those that only run
    in copies (``copied``). ``at_once``: what would wait for others, or read contents, is refused.
    Raises :class:`AgentFault`.
    """
    with working_on(layout, digest, at_once):
        if is_believed(layout, digest, check, copied):
            return {"have": True, "digest": digest}
        if at_once and os.path.isdir(layout.snapshot(digest)):
            raise AgentFault(BUSY, "the snapshot has to be read first")
        if _is_sound(layout, digest):
            return {"have": True, "digest": digest}
        if not manifest:
            base = usable_base(layout, bases, copied)
            return {"have": False, "digest": digest, "base": base, "store": store_name(layout)}
        wanted = read_manifest(manifest, digest)
        tree = _begin(layout, digest, wanted)
        fresh = os.listdir(tree.root) == [RESERVED]
        tree.prepare()
        base = _adopt_base(layout, tree, bases)
        missing = set(range(len(wanted.blobs)))
        if base or not fresh:  # what comes from before this boot is believed only when read
            known = fresh or os.path.exists(marker(tree.root, "begun"))
            missing = tree.missing(read=not (known and (not base or os.path.exists(marker(base)))))
        write_own(marker(tree.root, "begun"), b"")
        check_room(layout, wanted, missing)
        return {"have": finish(layout, digest, tree, missing), **answer(digest, tree, missing)}


def push_part(
    layout: NodeLayout, digest: str, header: Mapping[str, Any], stream: Readable
) -> dict[str, Any]:
    """Take one part: pieces of contents, compressed with zlib if ``header["compressed"]``.

    After the part with ``header["last"]``: ``{"complete": True}``, or what still lacks as in
    :func:`offer_snapshot`. A part for a snapshot that is complete meanwhile is ignored. Raises
    :class:`AgentFault`, and ``EOFError`` when the stream is cut, of which nothing is kept then.
    """
    with working_on(layout, digest):
        # Read under the lock: parts that follow one another on the wire are taken in that order.
        part = _read_part(stream, header.get("compressed") is True)
        if os.path.exists(marker(layout.snapshot(digest))):
            return {"complete": True, "digest": digest}
        root = _root(layout, digest)
        tree = Tree(root, _load_manifest(root, digest, read_field(header, "base", str, "")))
        for index, offset, data in _pieces(part, len(tree.manifest.blobs)):
            if offset == 0 and len(data) == tree.manifest.blobs[index][1]:
                tree.write(index, data)
            else:
                tree.append(index, offset, data)
        if header.get("last") is not True:
            return {"complete": False, "digest": digest}
        missing = tree.missing()
        complete = finish(layout, digest, tree, missing)
        return {"complete": complete, **answer(digest, tree, missing)}


@contextmanager
def working_on(layout: NodeLayout, digest: str, at_once: bool = False) -> Iterator[None]:
    """Hold the snapshot's lock; turn disk errors into faults."""
    name = "snapshot-" + check_name(digest, "digest", DIGEST)
    fd = lock_soon(os.path.join(layout.locks, name), 0.0 if at_once else LOCK_WAIT_S)
    try:
        with _disk_faults(layout):
            yield
    finally:
        os.close(fd)


@contextmanager
def _disk_faults(layout: NodeLayout) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise AgentFault(DISK_FULL, f"the disk of {layout.workdir} is full") from error
        raise AgentFault(SYSTEM, f"the snapshot cannot be kept: {error}") from error


def _is_sound(layout: NodeLayout, digest: str) -> bool:
    """Whether nothing is missing of what is not believed; it is from now on."""
    root = layout.snapshot(digest)
    if not os.path.isdir(root):
        return False
    try:
        tree = Tree(root, _load_manifest(root, digest))
    except AgentFault:
        return False
    tree.prepare()
    if tree.missing(read=not os.path.exists(marker(root))):
        unmark(root)
        return False
    mark_verified(root)
    return True


def usable_base(layout: NodeLayout, bases: Sequence[str], copied: bool) -> str:
    """The first of ``bases`` that is here and complete; ``""`` if none is."""
    known = (check_name(base, "digest", DIGEST) for base in bases[:MAX_BASES])
    return next((base for base in known if is_believed(layout, base, copied=copied)), "")


def _begin(layout: NodeLayout, digest: str, manifest: NodeManifest) -> Tree:
    """The tree to fill, with its manifest in it."""
    root = _root(layout, digest)
    os.makedirs(own_file(root, ""), 0o700, exist_ok=True)
    write_own(own_file(root, "manifest"), manifest.data)
    return Tree(root, manifest)


def finish(layout: NodeLayout, digest: str, tree: Tree, missing: set[int]) -> bool:
    """Whether it is a snapshot now, because nothing is missing."""
    if missing:
        return False
    for name in os.listdir(own_file(tree.root, "")):
        if name.startswith(ADDED):
            os.unlink(own_file(tree.root, name))
    mark_verified(tree.root)
    final = layout.snapshot(digest)
    if tree.root != final:
        os.rename(tree.root, final)
    return True


def _root(layout: NodeLayout, digest: str) -> str:
    """Where the snapshot is, or is filled. A damaged one is repaired in its place."""
    final = layout.snapshot(digest)
    return final if os.path.isdir(final) else partial_root(layout, digest)


def partial_root(layout: NodeLayout, digest: str) -> str:
    """Where a snapshot that is not there is filled."""
    return os.path.join(layout.snapshots, ".partial-" + digest)


@functools.lru_cache(maxsize=1)
def _load_manifest(root: str, digest: str, base: str = "") -> NodeManifest:
    """The manifest in ``root``, or what is new in it after ``base``; kept, for the parts of a push
    follow one another.
    """
    return NodeManifest(added_bytes(root, base) if base else manifest_bytes(root, digest))


def _adopt_base(layout: NodeLayout, tree: Tree, bases: Sequence[str]) -> str:
    """Take over what the first known one of ``bases`` has; its root, or ``""``."""
    for base in bases[:MAX_BASES]:
        root = layout.snapshot(base)
        try:
            data = manifest_bytes(root, base)
        except AgentFault:
            continue
        # Checked when it was stored; what counts now is only which content is where.
        rows = json.loads(data)["entries"]
        tree.adopt(root, {(row[3], row[1] == "x"): row[0] for row in rows if len(row) == 4})
        return root
    return ""


def check_room(layout: NodeLayout, manifest: NodeManifest, missing: set[int]) -> None:
    """Say before anything is sent that it would not fit."""
    status = os.statvfs(layout.snapshots)
    free = status.f_bavail * status.f_frsize
    blobs = [manifest.blobs[index] for index in missing]
    needed = sum(size * len(paths) for _, size, paths in blobs)
    files = sum(len(paths) for _, _, paths in blobs)
    if needed > free:
        why = f"{needed >> 20} MiB to come, {free >> 20} MiB free"
        raise AgentFault(DISK_FULL, f"too little space in {layout.workdir}: {why}")
    if status.f_files and files > status.f_favail:
        why = f"{files} files to come, {status.f_favail} free inodes"
        raise AgentFault(DISK_FULL, f"too few inodes in {layout.workdir}: {why}")


def answer(digest: str, tree: Tree, missing: set[int]) -> dict[str, Any]:
    """What is missing, as it is sent."""
    if not missing:
        return {"digest": digest}
    bits = bytearray((len(tree.manifest.blobs) + 7) // 8)
    for index in missing:
        bits[index // 8] |= 1 << index % 8
    return {"digest": digest, "missing": base64.b64encode(zlib.compress(bits)).decode()}


def _read_part(stream: Readable, compressed: bool) -> bytes:
    chunks, size = [], 0
    while True:
        chunk = stream.read(MAX_PART_BYTES + 1 - size)
        if not chunk:
            break
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_PART_BYTES:
            raise AgentFault(BAD_REQUEST, f"a part is larger than {MAX_PART_BYTES} bytes")
    packed = b"".join(chunks)
    if not compressed:
        return packed
    expand = zlib.decompressobj()
    try:
        data = expand.decompress(packed, MAX_PART_BYTES)
    except zlib.error as error:
        raise AgentFault(BAD_REQUEST, f"a part is damaged: {error}") from error
    if not expand.eof:
        raise AgentFault(BAD_REQUEST, "a part is incomplete or too large")
    return data


def _pieces(part: bytes, contents: int) -> Iterator[tuple[int, int, bytes]]:
    position = 0
    while position < len(part):
        if len(part) - position < PIECE.size:
            raise AgentFault(BAD_REQUEST, "a part ends within a header")
        index, offset, length = PIECE.unpack_from(part, position)
        position += PIECE.size
        data = part[position : position + length]
        position += length
        if index >= contents or len(data) != length:
            raise AgentFault(BAD_REQUEST, f"a part has an invalid piece: {shorten_value(index)}")
        yield index, offset, data
