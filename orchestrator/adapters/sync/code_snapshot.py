"""One digest for the code that a run takes along, and where each content is found here."""

from __future__ import annotations

import hashlib
import os
import stat
import time
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from orchestrator.adapters.sync.digest_index import MAX_BASES, TreeIndex
from orchestrator.adapters.sync.file_list import FileList, list_file, list_tree
from orchestrator.adapters.sync.file_stats import MODE, SIZE, WIDTH
from orchestrator.adapters.sync.ignore_rules import IGNORE_FILE
from orchestrator.adapters.sync.pack import Pack
from orchestrator.adapters.sync.skip_report import Skipped
from orchestrator.core.base.errors import PreflightError, UsageError
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

BUFFER_BYTES = 1024 * 1024
HASH_THREADS = 4
HASH_BATCH = 256
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
        self, listing: _Listing, digest: str, digests: bytes, bases: Sequence[str]
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
        self._packs: dict[bytes, Pack] = {}

    @cached_property
    def manifest(self) -> Manifest:
        """Raises ``PreflightError`` if the files changed since the snapshot was taken."""
        manifest = _make_manifest(self._listing, self._digests)
        if digest_of(manifest.encode()) != self.digest:
            raise files_changed_error(self._listing.parts[0].folder)
        return manifest

    @property
    def paths(self) -> Sequence[str]:
        """Where its files lie on a node, relative to the snapshot."""
        return self._listing.paths

    @cached_property
    def packed_manifest(self) -> bytes:
        return zlib.compress(self.manifest.encode(), 1)

    @cached_property
    def sources(self) -> Mapping[str, Path]:
        """A file here for every content."""
        size = 2 * DIGEST_BYTES
        digests = self._digests.hex()
        names = enumerate(self._listing.names())
        return {digests[i * size : (i + 1) * size]: folder / name for i, (folder, name) in names}

    def pack(self, missing: bytes) -> Pack:
        """The contents in the bitmap ``missing``, read and compressed once for all nodes."""
        pack = self._packs.get(missing)
        if pack is None or pack.closed:
            pack = self._packs[missing] = Pack(self.manifest.blobs(), self.sources, missing)
        return pack


def take_snapshot(parts: Sequence[TreePart], cache: Path) -> Snapshot:
    """List, read what the index in ``cache`` does not know, and name the whole.

    Raises ``UsageError`` for links that leave the tree, unreadable files, parts that collide, and
    more than a snapshot may hold.
    """
    listing = _Listing.of(parts)
    location = cache / f"{_tree_identity(parts)}.index"
    index = TreeIndex.load(location)
    if index is not None and index.matches(listing.paths, listing.stats):
        return Snapshot(listing, index.snapshot, index.digests, index.bases)
    began_ns = time.time_ns()
    digests = _read_digests(listing, index)
    manifest = _make_manifest(listing, digests)
    digest = digest_of(manifest.encode())
    bases = _base_digests(index, digest)
    new = TreeIndex(
        paths=listing.paths, stats=listing.stats, digests=digests, snapshot=digest, bases=bases
    )
    with suppress(OSError):  # without the index the next sync reads all files again, no more
        new.save(location, began_ns=began_ns)
    return Snapshot(listing, digest, digests, bases)


def files_changed_error(where: object) -> PreflightError:
    """The files are not those that the snapshot was taken of."""
    return PreflightError(
        "the file changed while it was synced",
        id="OR-SYNC-003",
        where=where,
        why="a run must use one state of the code on all nodes",
        remedy=f"run the command again, or list the file in {IGNORE_FILE} if it keeps changing",
    )


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
        for i, digest in zip(unread, _read_all(work), strict=True):
            found[i] = digest
    return b"".join(digest or _NONE for digest in found)


def _read_all(work: list[tuple[str, int]]) -> Iterator[bytes]:
    batches = [work[i : i + HASH_BATCH] for i in range(0, len(work), HASH_BATCH)]
    if len(batches) == 1:
        yield from _read_batch(batches[0])
        return
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        for digests in pool.map(_read_batch, batches):
            yield from digests


def _read_batch(batch: list[tuple[str, int]]) -> list[bytes]:
    return [digest_of_file(path, size) for path, size in batch]


def digest_of_file(path: str, size: int) -> bytes:
    """The digest of the first ``size`` bytes, so that a file that only grows may travel.

    Raises ``UsageError`` if it cannot be read, ``PreflightError`` if it is shorter.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    left = size
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            while left:
                data = os.read(fd, min(left, BUFFER_BYTES))
                if not data:
                    raise files_changed_error(path)
                digest.update(data)
                left -= len(data)
        finally:
            os.close(fd)
    except FileNotFoundError as error:
        raise files_changed_error(path) from error
    except OSError as error:
        raise UsageError(
            "the file cannot be read",
            id="OR-SYNC-002",
            where=path,
            why=error.strerror or str(error),
            remedy=f"make it readable, or list it in {IGNORE_FILE}",
        ) from error
    return digest.digest()


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
