"""What a code snapshot consists of: paths, sizes, the executable bit, and digests of contents.

A manifest has one encoding (canonical JSON) and so one digest, which names the snapshot everywhere:
two nodes with the same digest hold the same code. Times, owners and other mode bits are not part
of it. Both sides of the wire apply the same rules of safe paths, for neither trusts the other.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter

VERSION = 1
# 160 bits, as git's: who could choose two colliding files may run code on the nodes anyway.
DIGEST_BYTES = 20
MAX_ENTRIES = 500_000
MAX_PATH_BYTES = 2048
MAX_PART_BYTES = 255
MAX_TOTAL_BYTES = 1 << 40

# Nodes keep the manifest itself under this name in every snapshot.
RESERVED = ".orchestrate"
KIT_FOLDER = f"{RESERVED}/kit"

_DIGEST = re.compile(rf"[0-9a-f]{{{2 * DIGEST_BYTES}}}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class InvalidManifest(ValueError):
    """Not a manifest, or one that could write outside its snapshot."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A regular file. ``size`` in bytes; ``digest`` is ``digest_of`` its content."""

    path: str
    size: int
    executable: bool
    digest: str


@dataclass(frozen=True, slots=True)
class LinkEntry:
    """A symbolic link whose relative ``target`` stays inside the snapshot."""

    path: str
    target: str


Entry = FileEntry | LinkEntry


def digest_of(content: bytes) -> str:
    """The name of ``content``: 40 hexadecimal digits."""
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).hexdigest()


def is_digest(value: object) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def path_fault(path: str) -> str:
    """Why ``path`` may not be in a snapshot, or ``""`` when it may.

    Safe are relative paths of plain names in UTF-8, without control characters, of at most 255
    bytes a name and 2048 in all, that keep clear of the folder reserved for the manifest.
    """
    if path.partition("/")[0] == RESERVED and not path.startswith(f"{KIT_FOLDER}/"):
        return f"the name {RESERVED} is reserved"
    return _plain_fault(path)


def target_fault(path: str, target: str) -> str:
    """Why a link at ``path`` may not point to ``target``, or ``""`` when it may.

    ``.``, or any number of ``..`` and then plain names. As no entry lies below a link, the ``..``
    are real folders, and such a link cannot leave the snapshot, not even by way of other links.
    """
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
        return f"the path is longer than {MAX_PATH_BYTES} bytes"
    parts = path.split("/")
    if not {"", ".", ".."}.isdisjoint(parts):
        return "the path is not plain and relative"
    if size > MAX_PART_BYTES and any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        return f"a name is longer than {MAX_PART_BYTES} bytes"
    return ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """Entries in the order of their paths' code points. Build one with ``of`` or ``decode``."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Manifest:
        """Sorted and checked. Raises :class:`InvalidManifest`."""
        manifest = cls(tuple(sorted(entries, key=attrgetter("path"))))
        manifest.check()
        return manifest

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """The manifest that ``encode`` gave ``data`` for. Raises :class:`InvalidManifest`."""
        try:
            document = json.loads(data)
            if document["version"] != VERSION or not isinstance(document["entries"], list):
                raise InvalidManifest("a manifest of an unknown version")
            manifest = cls.of(decode_entry(row) for row in document["entries"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            if isinstance(error, InvalidManifest):
                raise
            raise InvalidManifest("not a manifest") from error
        if manifest.encode() != data:
            raise InvalidManifest("the manifest is not in its canonical form")
        return manifest

    def encode(self) -> bytes:
        """Canonical JSON in UTF-8: the same entries always give the same bytes."""
        document = {"version": VERSION, "entries": [encode_entry(entry) for entry in self.entries]}
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()

    def check(self) -> None:
        """Raises :class:`InvalidManifest` for an unsafe, repeated or nested path, or too much."""
        if len(self.entries) > MAX_ENTRIES:
            raise InvalidManifest(f"{len(self.entries)} files; at most {MAX_ENTRIES} are allowed")
        if sum(e.size for e in self.files()) > MAX_TOTAL_BYTES:
            raise InvalidManifest("the files are larger than 1 TiB together")
        for entry in self.entries:
            fault = _entry_fault(entry)
            if fault:
                raise InvalidManifest(f"{fault}: {entry.path!r}")
        paths = {entry.path for entry in self.entries}
        if len(paths) < len(self.entries):
            raise InvalidManifest("a path occurs twice")
        nested = paths & folders_of(paths)
        if nested:
            raise InvalidManifest(f"both a file and a folder: {min(nested)!r}")
        sizes = self.blobs()
        if any(sizes[entry.digest] != entry.size for entry in self.files()):
            raise InvalidManifest("one content has two sizes: a file changed while it was read")

    def files(self) -> Iterator[FileEntry]:
        return (e for e in self.entries if isinstance(e, FileEntry))

    def blobs(self) -> dict[str, int]:
        """The distinct contents (digest -> bytes) by first path: position = index on the wire."""
        return {e.digest: e.size for e in self.files()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Paths in order. ``changed`` has another content, mode, target or kind."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]


def compare_manifests(old: Manifest, new: Manifest) -> Difference:
    """What turns ``old`` into ``new``."""
    before = {entry.path: entry for entry in old.entries}
    after = {entry.path: entry for entry in new.entries}
    return Difference(
        added=tuple(path for path in after if path not in before),
        changed=tuple(p for p, entry in after.items() if p in before and before[p] != entry),
        removed=tuple(path for path in before if path not in after),
    )


def folders_of(paths: Iterable[str]) -> set[str]:
    """Every folder that ``paths`` lie in, at any depth, without the root."""
    folders: set[str] = set()
    for path in paths:
        folder = path.rpartition("/")[0]
        while folder and folder not in folders:
            folders.add(folder)
            folder = folder.rpartition("/")[0]
    return folders


def encode_entry(entry: Entry) -> list[str | int]:
    """The entry as plain data."""
    if isinstance(entry, FileEntry):
        return [entry.path, "x" if entry.executable else "f", entry.size, entry.digest]
    return [entry.path, "l", entry.target]


def decode_entry(row: object) -> Entry:
    """The entry that ``encode_entry`` gave ``row`` for. Raises :class:`InvalidManifest`."""
    match row:
        case [str(path), "f" | "x" as kind, int(size), str(digest)] if type(size) is int:
            return FileEntry(path, size, kind == "x", digest)
        case [str(path), "l", str(target)]:
            return LinkEntry(path, target)
    raise InvalidManifest(f"not an entry: {row!r:.200}")


def _entry_fault(entry: Entry) -> str:
    fault = path_fault(entry.path)
    if fault:
        return fault
    if isinstance(entry, LinkEntry):
        return target_fault(entry.path, entry.target)
    if entry.size < 0 or not is_digest(entry.digest):
        return "the size or the digest is invalid"
    return ""
