"""One digest for the code that a run takes along, and where each content is found here."""

from __future__ import annotations

import os
import stat
import threading
import time
import zlib
from array import array
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from orchestrator.adapters.sync.digest_index import MAX_BASES, KeptManifests, TreeIndex
from orchestrator.adapters.sync.file_digests import digests_of_files, files_changed_error
from orchestrator.adapters.sync.file_list import FileList, list_file, list_tree
from orchestrator.adapters.sync.file_stats import MODE, SIZE, WIDTH, differing_rows
from orchestrator.adapters.sync.ignore_rules import IGNORE_FILE
from orchestrator.adapters.sync.pack import Contents
from orchestrator.adapters.sync.skip_report import Skipped
from orchestrator.adapters.sync.turns import Turns
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.manifest import (
    DIGEST_BYTES,
    KIT_FOLDER,
    Entry,
    FileEntry,
    InvalidManifest,
    LinkEntry,
    Manifest,
    digest_of,
    folders_of,
    target_fault,
)
from orchestrator.core.base.manifest_change import change_between, replace_entry

MAX_EDITED = 64
MAX_NAMED = 5
_NONE = bytes(DIGEST_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreePart:
    """A file or a folder here, and its ``place`` in the snapshot; ``""`` is the root.

    ``own`` is the folder of the coordinator's files, which stay behind if they are in here.
    ``needed`` are paths in it of which the snapshot tells why they are left out.
    """

    source: Path
    place: str = ""
    own: Path | None = None
    needed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OfferedChange:
    """What turns the snapshot ``base`` into another one: as it travels, and its contents."""

    base: str
    packed: bytes
    contents: Contents


def workload_parts(
    folder: Path, packages: Sequence[Path], needed: tuple[str, ...] = ()
) -> tuple[TreePart, ...]:
    """A workload: its folder under its own name, and the packages that it imports beside it."""
    tree = TreePart(source=folder, place=folder.name, needed=needed)
    return tree, *(part for package in packages for part in _module_parts(package, package.name))


def project_parts(
    folder: Path, kit: Path, own: Path | None = None, needed: tuple[str, ...] = ()
) -> tuple[TreePart, ...]:
    """A user's project as it is; the kit lies where it hides nothing of the user's."""
    tree = TreePart(source=folder, own=own, needed=needed)
    return tree, *_module_parts(kit, f"{KIT_FOLDER}/{kit.name}")


def _module_parts(package: Path, place: str) -> Iterator[TreePart]:
    """One by one, so that what stays behind by a rule is the user's alone."""
    for file in sorted(package.rglob("*.py")):
        yield TreePart(source=file, place=f"{place}/{file.relative_to(package).as_posix()}")


class Snapshot:
    """Code at one moment. What only a node without it needs is worked out on demand.

    ``digest`` names it; ``bases`` are digests of earlier snapshots of the same tree, newest first.
    ``left_out``: of the paths that the parts need, those that do not travel, with the rule.
    """

    def __init__(
        self,
        listing: _Listing,
        digest: str,
        digests: bytes,
        bases: Sequence[str],
        kept: KeptManifests | None = None,
    ) -> None:
        self.digest = digest
        self.bases = tuple(bases)
        self.files = len(listing.paths)
        self.bytes = sum(part.total_bytes for part in listing.parts)
        self.skipped: tuple[Skipped, ...] = tuple(s for part in listing.parts for s in part.skipped)
        self.warnings: tuple[str, ...] = tuple(w for part in listing.parts for w in part.warnings)
        self.left_out = {p: rule for part in listing.parts for p, rule in part.left_out.items()}
        self._listing = listing
        self._digests = digests
        self._kept = kept
        self.turns = Turns()
        self._changes: dict[str, OfferedChange | None] = {}
        self._once = threading.RLock()  # what all nodes ask for is worked out for the first

    @cached_property
    def manifest(self) -> Manifest:
        """Raises ``PreflightError`` if the files changed since the snapshot was taken."""
        manifest = _make_manifest(self._listing, self._digests)
        if digest_of(manifest.encode()) != self.digest:
            raise files_changed_error(self._listing.parts[0].folder)
        return manifest

    @property
    def offer(self) -> dict[str, Any]:
        """What a node is asked. ``copied``: this code only runs in copies of it."""
        copied = {"copied": True} if self._kept is not None else {}
        return {"digest": self.digest, "bases": list(self.bases), **copied}

    @property
    def paths(self) -> Sequence[str]:
        """Where its files lie on a node, relative to the snapshot."""
        return self._listing.paths

    @cached_property
    def packed_manifest(self) -> bytes:
        with self._once:
            return zlib.compress(self.manifest.encode(), 1)

    @cached_property
    def contents(self) -> Contents:
        """All of its contents."""
        size = 2 * DIGEST_BYTES
        digests = self._digests.hex()
        names = enumerate(self._listing.names())
        sources = {digests[i * size : (i + 1) * size]: folder / name for i, (folder, name) in names}
        return Contents(self.manifest.blobs(), sources)

    def change_from(self, base: str) -> OfferedChange | None:
        """What turns the snapshot ``base`` into this one; None if that is much, or not known here.

        Only for code that runs in a copy of its own: see the agent's ``shared_folders.py``.
        """
        with self._once:
            if base not in self._changes:
                self._changes[base] = self._find_change(base)
            return self._changes[base]

    def _find_change(self, base: str) -> OfferedChange | None:
        if self._kept is None or base not in self.bases:
            return None
        old, new = self._kept.manifest(base), self._kept.manifest(self.digest)
        change = change_between(old, new) if old and new else None
        if change is None:
            return None
        manifest = change.manifest
        digests = {entry.path: entry.digest for entry in manifest.files()}
        files = zip(self._listing.paths, self._listing.names(), strict=True)
        sources = {digests[path]: Path(*name) for path, name in files if path in digests}
        packed = zlib.compress(change.encode(), 1)
        return OfferedChange(base, packed, Contents(manifest.blobs(), sources))


def take_snapshot(parts: Sequence[TreePart], cache: Path) -> Snapshot:
    """List, read what the index in ``cache`` does not know, and name the whole.

    Raises ``UsageError`` for links that leave the tree, unreadable files, parts that collide, and
    more than a snapshot may hold.
    """
    listing = _Listing.of(parts)
    location = cache / f"{_tree_identity(parts)}.index"
    copied = any(not part.place for part in parts)  # a project
    kept = KeptManifests(location)
    index = TreeIndex.load(location)
    if index is not None and index.matches(listing.paths, listing.stats):
        bases, digests = index.bases, index.digests
        return Snapshot(listing, index.snapshot, digests, bases, kept if copied else None)
    began_ns = time.time_ns()
    digests, manifest = _edited(listing, index, kept) or _read(listing, index)
    digest = digest_of(manifest)
    bases = _base_digests(index, digest)
    new = TreeIndex(
        paths=listing.paths, stats=listing.stats, digests=digests, snapshot=digest, bases=bases
    )
    with suppress(OSError):  # without the index the next sync reads all files again, no more
        new.save(location, began_ns=began_ns)
        kept.keep(manifest, digest)
    return Snapshot(listing, digest, digests, bases, kept if copied else None)


def _edited(
    listing: _Listing, index: TreeIndex | None, kept: KeptManifests
) -> tuple[bytes, bytes] | None:
    """(digests, manifest) where a few known files have another content: the rest is as it was."""
    if index is None or index.paths != listing.paths:
        return None
    rows = differing_rows(index.stats, listing.stats)
    modes, sizes = listing.stats[MODE::WIDTH], listing.stats[SIZE::WIDTH]
    manifest = kept.manifest(index.snapshot)
    if not manifest or len(rows) > MAX_EDITED or any(stat.S_ISLNK(modes[i]) for i in rows):
        return None
    names = list(listing.names())
    work = [("/".join(map(str, names[i])), sizes[i]) for i in rows]
    digests = bytearray(index.digests)
    try:
        for i, digest in zip(rows, digests_of_files(work), strict=True):
            digests[i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES] = digest
            executable = bool(modes[i] & stat.S_IXUSR)
            entry = FileEntry(listing.paths[i], sizes[i], executable, digest.hex())
            manifest = replace_entry(manifest, entry)
    except ValueError:
        return None
    return bytes(digests), manifest


def _read(listing: _Listing, index: TreeIndex | None) -> tuple[bytes, bytes]:
    """(digests, manifest) of the whole."""
    digests = _read_digests(listing, index)
    return digests, _make_manifest(listing, digests).encode()


class _Listing:
    """The files of all parts, in step: ``paths`` in the snapshot, rows of ``stats``, sources."""

    def __init__(self, parts: list[FileList], paths: list[str]) -> None:
        self.parts = parts
        self.paths = paths
        self.stats = array("q")
        for part in parts:
            self.stats += part.stats

    @classmethod
    def of(cls, parts: Sequence[TreePart]) -> _Listing:
        lists, paths = [], []
        for part in parts:
            if part.source.is_dir():
                files = list_tree(part.source, part.own, part.needed)
                prefix = f"{part.place}/" if part.place else ""
                paths += [prefix + name for name in files.names] if prefix else files.names
            else:
                files = list_file(part.source)
                paths.append(part.place)
            lists.append(files)
        return cls(lists, paths)

    def names(self) -> Iterator[tuple[Path, str]]:
        """(folder, relative name) of every file."""
        return ((part.folder, name) for part in self.parts for name in part.names)


def _tree_identity(parts: Sequence[TreePart]) -> str:
    """Names the tree that is synced, whatever is in it."""
    places = [f"{os.path.realpath(part.source)}\0{part.place}" for part in parts]
    return digest_of("\0\0".join(places).encode(errors="surrogateescape"))


def _base_digests(index: TreeIndex | None, digest: str) -> tuple[str, ...]:
    if index is None:
        return ()
    return tuple(base for base in (index.snapshot, *index.bases) if base != digest)[:MAX_BASES]


def _read_digests(listing: _Listing, index: TreeIndex | None) -> bytes:
    """The binary digests of all files, joined; a link's is zero. Reads what ``index`` lacks."""
    known = index.known() if index else {}
    rows = listing.stats.tobytes()
    width = WIDTH * listing.stats.itemsize
    found = [
        _NONE if stat.S_ISLNK(mode) else known.get((path, rows[i * width : (i + 1) * width]))
        for i, (path, mode) in enumerate(
            zip(listing.paths, listing.stats[MODE::WIDTH], strict=True)
        )
    ]
    unread = [i for i, digest in enumerate(found) if digest is None]
    if unread:
        sources = [f"{folder}/{name}" for folder, name in listing.names()]
        sizes = listing.stats[SIZE::WIDTH]
        work = [(sources[i], sizes[i]) for i in unread]
        for i, digest in zip(unread, digests_of_files(work), strict=True):
            found[i] = digest
    return b"".join(digest or _NONE for digest in found)


def _make_manifest(listing: _Listing, digests: bytes) -> Manifest:
    entries = list(_manifest_entries(listing, digests))
    links = {entry.path for entry in entries if isinstance(entry, LinkEntry)}
    if links:  # git still names what was in a folder that a link replaced
        entries = [entry for entry in entries if links.isdisjoint(folders_of([entry.path]))]
    try:
        return Manifest.of(entries)
    except InvalidManifest as error:
        raise UsageError(
            "the files cannot become a snapshot",
            id="OR-SYNC-005",
            where=listing.parts[0].folder,
            why=str(error),
            remedy=f"list in {IGNORE_FILE} what the job does not read",
        ) from error


def _manifest_entries(listing: _Listing, digests: bytes) -> Iterator[Entry]:
    modes, sizes = listing.stats[MODE::WIDTH], listing.stats[SIZE::WIDTH]
    hexadecimal = digests.hex()
    escaping = []
    for i, (path, (folder, name)) in enumerate(zip(listing.paths, listing.names(), strict=True)):
        if not stat.S_ISLNK(modes[i]):
            digest = hexadecimal[2 * DIGEST_BYTES * i : 2 * DIGEST_BYTES * (i + 1)]
            yield FileEntry(path, sizes[i], bool(modes[i] & stat.S_IXUSR), digest)
        elif target := _safe_target(folder, name):
            yield LinkEntry(path, target)
        else:
            escaping.append(f"{folder / name} -> {(folder / name).readlink()}")
    if escaping:
        raise UsageError(
            "a link leaves the tree" if len(escaping) == 1 else "links leave the tree",
            id="OR-SYNC-001",
            where="; ".join(escaping[:MAX_NAMED]) + ("; ..." if len(escaping) > MAX_NAMED else ""),
            why="on a node it would point to something else, or to nothing",
            remedy=f"list it in {IGNORE_FILE}, or put what it points to into the tree",
        )


def _safe_target(folder: Path, name: str) -> str:
    """Where the link may point on a node as it does here; ``""`` if that is outside ``folder``."""
    link = folder / name
    try:
        target = str(link.readlink())
    except OSError as error:
        raise files_changed_error(link) from error
    if not target_fault(name, target):
        return target
    above = link.parent.resolve()
    rewritten = os.path.relpath(os.path.realpath(above / target), above)
    return "" if target_fault(name, rewritten) else rewritten
