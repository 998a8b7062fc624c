"""The manifest as a node sees it: bytes from elsewhere, checked before any path is used.

The same rules as ``orchestrator.core.base.manifest``, which cannot be imported here.
"""

from __future__ import annotations

import json
import re
import zlib

from orchestrator.node_agent.base.agent_errors import AgentFault, shorten_value
from orchestrator.node_agent.base.digests import blake2b
from orchestrator.node_agent.code.complete_snapshots import RESERVED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Files = dict[str, tuple[int, bool, str]]
    Blob = tuple[str, int, list[str]]

INVALID = "OR-AGENT-MANIFEST"

VERSION = 1
DIGEST_BYTES = 20
MAX_ENTRIES = 500_000
MAX_PATH_BYTES = 2048
MAX_PART_BYTES = 255
MAX_TOTAL_BYTES = 1 << 40
MAX_MANIFEST_BYTES = 128 * 1024 * 1024
KIT_FOLDER = ".orchestrate/kit/"

_DIGEST = re.compile(r"[0-9a-f]{40}\Z")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def digest_of(data: bytes) -> str:
    return blake2b(data, digest_size=DIGEST_BYTES).hexdigest()


class NodeManifest:
    """``files``: path -> (size, executable, digest); ``links``: path -> target; ``folders``: all
    parents, outermost first; ``blobs``: distinct contents as (digest, size, paths)."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.files: Files = {}
        self.links: dict[str, str] = {}
        for row in _rows(data):
            self._add(row)
        paths = self.files.keys() | self.links.keys()
        folders = folders_of(paths)
        if not folders.isdisjoint(paths):
            raise _invalid("a path is both a file and a folder")
        self.folders = sorted(folders)
        self.blobs = _blobs_of(self.files)
        if sum(size for size, _, _ in self.files.values()) > MAX_TOTAL_BYTES:
            raise _invalid("its files are larger than 1 TiB together")

    def _add(self, row: object) -> None:
        if not isinstance(row, list) or len(row) not in (3, 4) or not isinstance(row[0], str):
            raise _invalid(f"not an entry: {shorten_value(row)}")
        path = row[0]
        fault = path_fault(path)
        if path in self.files or path in self.links:
            fault = "the path occurs twice"
        if not fault and len(row) == 3:
            fault = self._add_link(path, row[1], row[2])
        elif not fault:
            fault = self._add_file(path, *row[1:])
        if fault:
            raise _invalid(f"{fault}: {shorten_value(path)}")

    def _add_link(self, path: str, kind: object, target: object) -> str:
        if kind != "l" or not isinstance(target, str):
            return "not a link"
        self.links[path] = target
        return target_fault(path, target)

    def _add_file(self, path: str, kind: object, size: object, digest: object) -> str:
        if kind not in ("f", "x") or type(size) is not int or not 0 <= size <= MAX_TOTAL_BYTES:
            return "not a file"
        if not isinstance(digest, str) or not _DIGEST.match(digest):
            return "not a digest"
        self.files[path] = (size, kind == "x", digest)
        return ""


def read_manifest(packed: bytes, digest: str) -> NodeManifest:
    """The manifest in a zlib stream. Raises :class:`AgentFault` unless safe and ``digest``'s."""
    expand = zlib.decompressobj()
    try:
        data = expand.decompress(packed, MAX_MANIFEST_BYTES)
    except zlib.error as error:
        raise _invalid(f"it is not compressed ({error})") from error
    if not expand.eof or digest_of(data) != digest:
        raise _invalid("it does not have the announced digest")
    return NodeManifest(data)


def path_fault(path: str) -> str:
    """Why ``path`` may not be in a snapshot, or ``""``."""
    if path.split("/", 1)[0] == RESERVED and not path.startswith(KIT_FOLDER):
        return "the name is reserved"
    return _plain_fault(path)


def target_fault(path: str, target: str) -> str:
    """Why a link at ``path`` may not point to ``target``, or ``""``."""
    if target.startswith("/"):
        return "the link is absolute"
    names = target.split("/")
    while names and names[0] == "..":
        del names[0]
    if target.count("/") + 1 - len(names) > path.count("/"):
        return "the link leaves the tree"
    return _plain_fault("/".join(names)) if names and target != "." else ""


def _plain_fault(path: str) -> str:
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        return "the name is not UTF-8"
    if _CONTROL.search(path):
        return "the name has control characters"
    if size > MAX_PATH_BYTES:
        return "the path is too long"
    parts = path.split("/")
    if not {"", ".", ".."}.isdisjoint(parts):
        return "the path is not plain and relative"
    if size > MAX_PART_BYTES and any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        return "a name is too long"
    return ""


def _rows(data: bytes) -> list[object]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise _invalid("it is not JSON") from error
    rows = document.get("entries") if isinstance(document, dict) else None
    if not isinstance(rows, list) or document.get("version") != VERSION:
        raise _invalid("its version is unknown")
    if len(rows) > MAX_ENTRIES:
        raise _invalid(f"it has more than {MAX_ENTRIES} entries")
    return rows


def _blobs_of(files: Files) -> list[Blob]:
    """Distinct contents in the order of their first path: the indices that the wire uses."""
    blobs: dict[str, Blob] = {}
    for path, (size, _, digest) in files.items():
        blob = blobs.setdefault(digest, (digest, size, []))
        if blob[1] != size:
            raise _invalid(f"one digest has two sizes: {shorten_value(path)}")
        blob[2].append(path)
    return list(blobs.values())


def folders_of(paths: Iterable[str]) -> set[str]:
    """Every folder that ``paths`` lie in, at any depth, without the root."""
    folders: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders


def _invalid(why: str) -> AgentFault:
    return AgentFault(INVALID, f"the manifest is refused: {why}")
