"""Read an archive in one pass that verifies every byte of it; it may come from anywhere."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.archive import ArchivedFile, ArchiveManifest
from orchestrator.parsing.inputs.archive_manifest import MAX_ARCHIVED_FILES, parse_manifest

MANIFEST, SUMS = "manifest.json", "SHA256SUMS"
MAX_MANIFEST_BYTES = 64 << 20
MAX_KEPT_BYTES = 256 << 20  # of all the files whose content is asked for
CHUNK_BYTES = 1 << 20

Wanted = Callable[[str], bool]
OpenMember = tuple[tarfile.TarInfo, IO[bytes]]


@dataclass(frozen=True, slots=True)
class ReadArchive:
    """A verified archive; ``files``: the content of those that were asked for, by path."""

    manifest: ArchiveManifest
    files: Mapping[str, bytes]


def archive_digest(path: Path) -> str:
    """SHA-256 of the whole file, in hexadecimal digits. Raises ``OSError``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _Damaged(Exception):
    """What is wrong with the archive, in words."""


def read_archive(path: Path, wanted: Wanted = lambda _: False) -> ReadArchive:
    """Verify all of ``path`` and keep the files that are ``wanted``.

    Every file of the manifest is there once, with its length and digest, and nothing else is.
    Raises :class:`UsageError` with the file that is not as it should be, and ``OSError``.
    """
    try:
        with _Bounded(path, "rb") as packed:
            with tarfile.open(fileobj=packed, mode="r:") as tar:
                found = _read_members(_regular_members(tar), wanted)
            while packed.read(CHUNK_BYTES):
                pass  # up to the checksum of the whole
            return found
    except (_Damaged, tarfile.TarError, zlib.error, EOFError, gzip.BadGzipFile) as error:
        raise UsageError(
            f"not a whole archive: {error}",
            id="archive.damaged",
            where=path,
            remedy="copy it again from where it was made; sha256sum compares the two",
        ) from error


class _Bounded(gzip.GzipFile):
    """Refuses to read more at once than our archives need: headers of others name any length."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= CHUNK_BYTES:
            raise _Damaged("a header of unusual length")
        return super().read(size)


def _read_members(members: Iterator[OpenMember], wanted: Wanted) -> ReadArchive:
    manifest = _read_head(members)
    missing = {file.path: file for file in manifest.files}
    kept: dict[str, bytes] = {}
    room = MAX_KEPT_BYTES
    for info, content in members:
        path = info.name.removeprefix(f"{manifest.name}/")
        file = missing.pop(path, None)
        if file is None:
            raise _Damaged(f"{path[:200]!r} is not in its manifest, or is there twice")
        if not wanted(path):
            _verify(content, file)
            continue
        room -= file.bytes
        if room < 0:
            raise _Damaged(f"more than {MAX_KEPT_BYTES >> 20} MiB of results and reports")
        kept[path] = _verified(content, file)
    if missing:
        raise _Damaged(f"{next(iter(missing))!r} is missing")
    return ReadArchive(manifest, kept)


def _read_head(members: Iterator[OpenMember]) -> ArchiveManifest:
    """The first two files: the manifest, and the digests whose first line is the manifest's."""
    texts = []
    for name in (MANIFEST, SUMS):
        info, content = next(members, (None, None))
        if info is None or content is None or not info.name.endswith(f"/{name}"):
            raise _Damaged(f"{name} is not where it should be")
        texts.append(_read_bounded(content, info.size))
    manifest, sums = texts
    if not sums.startswith(hashlib.sha256(manifest).hexdigest().encode() + b"  "):
        raise _Damaged(f"{MANIFEST} is not as it was written")
    try:
        return parse_manifest(manifest)
    except ValueError as error:
        raise _Damaged(str(error)) from error


def _regular_members(tar: tarfile.TarFile) -> Iterator[OpenMember]:
    for number, info in enumerate(iter(tar.next, None)):
        content = tar.extractfile(info) if info.isreg() else None
        if content is None or number > MAX_ARCHIVED_FILES + len((MANIFEST, SUMS)):
            raise _Damaged(f"{info.name[:200]!r} is not a regular file, or there are too many")
        yield info, content
        tar.members.clear()  # type: ignore[attr-defined]  # else headers would fill the memory


def _read_bounded(content: IO[bytes], size: int) -> bytes:
    if size > MAX_MANIFEST_BYTES:
        raise _Damaged("its manifest is too long")
    return b"".join(iter(lambda: content.read(CHUNK_BYTES), b""))


def _verified(content: IO[bytes], file: ArchivedFile) -> bytes:
    parts: list[bytes] = []
    _verify(content, file, parts.append)
    return b"".join(parts)


def _verify(
    content: IO[bytes], file: ArchivedFile, keep: Callable[[bytes], object] = lambda _: None
) -> None:
    digest, size = hashlib.sha256(), 0
    while chunk := content.read(CHUNK_BYTES):
        digest.update(chunk)
        size += len(chunk)
        keep(chunk)
    if (size, digest.hexdigest()) != (file.bytes, file.sha256):
        raise _Damaged(f"{file.path!r} is not as it was written")
