"""A manifest as a change of an earlier one. Of 50,000 entries only those that differ are decoded.

Works on encoded manifests: entries are told apart by the bytes between them, which no path has
unless there is a quote in it. Such manifests travel as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.core.base.manifest import Entry, Manifest, decode_entry, encode_entry

FIRST, BETWEEN, LAST = b'{"version":1,"entries":[["', b'"],["', b'"]]}'
# More than this is no small change any more: the whole is quicker then.
MAX_CHANGED = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestChange:
    """``removed``: positions in the earlier manifest; ``added``: entries with theirs in the new."""

    removed: tuple[int, ...]
    added: tuple[tuple[int, Entry], ...]

    @property
    def manifest(self) -> Manifest:
        """What is new, alone: the position of a content in it is its index on the wire."""
        return Manifest.of(entry for _, entry in self.added)

    def encode(self) -> bytes:
        """As the node reads it."""
        added = [[at, encode_entry(entry)] for at, entry in self.added]
        document = {"removed": self.removed, "added": added}
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def change_between(old: bytes, new: bytes) -> ManifestChange | None:
    """What turns ``old`` into ``new``; None if it is much, or cannot be told by entries."""
    before, after = split_rows(old), split_rows(new)
    removed = _positions_of_others(before, after)
    added = _positions_of_others(after, before)
    if not before or not after or len(removed) + len(added) > MAX_CHANGED:
        return None
    entries = tuple((at, decode_entry(json.loads(b'["' + after[at] + b'"]'))) for at in added)
    return ManifestChange(removed=tuple(removed), added=entries)


def replace_entry(manifest: bytes, entry: Entry) -> bytes:
    """``manifest`` with ``entry`` in place of the one of its path.

    Raises ``ValueError`` if there is none, or if entries cannot be told apart.
    """
    row = json.dumps(encode_entry(entry), ensure_ascii=False, separators=(",", ":")).encode()
    begin = b"[" + json.dumps(entry.path, ensure_ascii=False).encode() + b","
    if b'\\"' in manifest or b'\\"' in row:
        raise ValueError("a quote in a path")
    start = manifest.index(begin)
    end = manifest.index(b'"]', start + len(begin)) + 2
    return manifest[:start] + row + manifest[end:]


def split_rows(manifest: bytes) -> list[bytes]:
    """The entries, each without its outer quotes and brackets; none if they cannot be told."""
    if b'\\"' in manifest or not (manifest.startswith(FIRST) and manifest.endswith(LAST)):
        return []
    return manifest[len(FIRST) : -len(LAST)].split(BETWEEN)


def _positions_of_others(rows: Sequence[bytes], known: Sequence[bytes]) -> list[int]:
    there = frozenset(known)
    return [at for at, row in enumerate(rows) if row not in there]
