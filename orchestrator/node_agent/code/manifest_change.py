"""A manifest as a change of one that the node has: entries that go, and entries that come.

Of 50,000 entries one is read and checked then, and not all of them; what was checked when it was
stored is believed. The same form as in ``orchestrator.core.base.manifest_change``.
"""

from __future__ import annotations

import json
import zlib

from orchestrator.node_agent.base.agent_errors import AgentFault
from orchestrator.node_agent.code.node_manifest import (
    INVALID,
    MAX_ENTRIES,
    VERSION,
    NodeManifest,
    digest_of,
    folders_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_CHANGE_BYTES = 4 * 1024 * 1024
FIRST, BETWEEN, LAST = b'{"version":1,"entries":[["', b'"],["', b'"]]}'


class ManifestChange:
    """``manifest``: the new one's bytes; ``added``: what is new in it; ``touched``: every path that
    goes or comes. Raises :class:`AgentFault` unless it makes a safe manifest with this digest.
    """

    def __init__(self, base: bytes, packed: bytes, digest: str) -> None:
        removed, added = _parse_change(packed)
        rows = split_rows(base)
        new = {at: _encode(row) for at, row in added}
        self.added = NodeManifest(encode_rows([row for _, row in added]))
        gone = [_path(rows[at]) for at in removed if at < len(rows)]
        self.manifest = FIRST + BETWEEN.join(_merged(rows, set(removed), new)) + LAST
        if len(gone) < len(removed) or digest_of(self.manifest) != digest:
            raise _invalid("it does not lead to the announced digest")
        self.touched = {*self.added.files, *self.added.links, *gone}
        self._check_neighbours(len(rows) - len(removed) + len(new))

    def _check_neighbours(self, entries: int) -> None:
        """What makes a set of safe entries safe: each path once, nothing below a file or link."""
        if entries > MAX_ENTRIES:
            raise _invalid(f"it has more than {MAX_ENTRIES} entries")
        paths = {*self.added.files, *self.added.links}
        for path in paths:
            begin = _quoted(path)
            if self.manifest.count(begin) != 1:
                raise _invalid("a path occurs twice")
            if begin[:-2] + b"/" in self.manifest:
                raise _invalid("a path is both a file and a folder")
        if any(_quoted(folder) in self.manifest for folder in folders_of(paths)):
            raise _invalid("a path is both a file and a folder")
        for content, size, _ in self.added.blobs:
            name = b'"' + content.encode() + b'"'
            if self.manifest.count(name) != self.manifest.count(b",%d,%s" % (size, name)):
                raise _invalid("one digest has two sizes")

    def find_contents(self, base: bytes) -> dict[tuple[str, bool], str]:
        """(digest, executable) -> path of what ``base`` has of the added contents."""
        found = {}
        for digest, _, _ in self.added.blobs:
            end = base.find(b',"' + digest.encode() + b'"]')
            if end >= 0:
                between = base.rfind(BETWEEN, 0, end)
                start = between + len(BETWEEN) if between >= 0 else len(FIRST)
                path, kind = json.loads(b'["' + base[start:end] + b"]")[:2]
                found[digest, kind == "x"] = path
        return found


def split_rows(manifest: bytes) -> list[bytes]:
    """The entries, each without its outer quotes and brackets.

    With a quote in a path they could not be told apart: there whole manifests travel.
    """
    if b'\\"' in manifest or not (manifest.startswith(FIRST) and manifest.endswith(LAST)):
        raise _invalid("it cannot be changed by entries")
    return manifest[len(FIRST) : -len(LAST)].split(BETWEEN)


def encode_rows(rows: list[Any]) -> bytes:
    """A manifest of these entries alone."""
    document = {"version": VERSION, "entries": rows}
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _merged(rows: list[bytes], removed: set[int], new: dict[int, bytes]) -> list[bytes]:
    """``rows`` without those at ``removed``; then each of ``new`` comes to its place."""
    merged = [row for at, row in enumerate(rows) if at not in removed] if removed else list(rows)
    for at in sorted(new):
        merged.insert(at, new[at])
    return merged


def _parse_change(packed: bytes) -> tuple[list[int], list[tuple[int, Any]]]:
    expand = zlib.decompressobj()
    try:
        document = json.loads(expand.decompress(packed, MAX_CHANGE_BYTES))
        removed, added = document["removed"], [(at, row) for at, row in document["added"]]
    except (zlib.error, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _invalid("a change that cannot be read") from error
    places = [*removed, *(at for at, _ in added)] if isinstance(removed, list) else [None]
    if not expand.eof or not all(type(at) is int and at >= 0 for at in places):
        raise _invalid("a change that cannot be read")
    return removed, added


def _encode(row: object) -> bytes:
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    try:
        return text[2:-2].encode()
    except UnicodeEncodeError as error:
        raise _invalid("a name is not UTF-8") from error


def _path(row: bytes) -> str:
    return str(json.loads(b'["' + row + b'"]')[0])


def _quoted(path: str) -> bytes:
    """What an entry of this path begins with, and no other one."""
    return b"[" + json.dumps(path, ensure_ascii=False).encode() + b","


def _invalid(why: str) -> AgentFault:
    return AgentFault(INVALID, f"the manifest is refused: {why}")
