"""Write an archive: digests first, then the files, then all of it read again."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import orchestrator
from orchestrator.adapters.archive.read_archive import MANIFEST, SUMS, read_archive
from orchestrator.adapters.store.atomic_files import sync_dir
from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.archive import ArchivedFile, ArchiveManifest
from orchestrator.parsing.inputs.archive_manifest import check_archived_path, manifest_fields

SUFFIX = ".tar.gz"
LEVEL = 6


@dataclass(frozen=True, slots=True)
class Member:
    """A file to come: where it will lie in the archive, and its content or where that is."""

    path: str
    source: Path | bytes


def folder_members(folder: Path, below: str = "") -> Iterator[Member]:
    """The regular files in ``folder``, in the order of their names; links are not followed."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield Member(f"{below}{path.relative_to(folder).as_posix()}", path)


def write_archive(
    path: Path,
    kind: str,
    members: Iterable[Member],
    *,
    made: float,
    about: Mapping[str, Any],
) -> None:
    """Put an archive at ``path``, whose name ends with ``SUFFIX``; it appears when it is verified.

    Raises ``OSError``, also where the disk is full, and :class:`UsageError` where a file changed
    meanwhile; nothing is at ``path`` then that was not there before.
    """
    found = sorted(members, key=lambda member: member.path)
    manifest = ArchiveManifest(
        kind=kind,
        name=path.name.removesuffix(SUFFIX),
        made=made,
        version=orchestrator.__version__,
        files=tuple(map(_describe_member, found)),
        about=about,
    )
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _write_tar(file, manifest, found)
            file.flush()
            os.fsync(file.fileno())
        read_archive(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_dir(path.parent)


def _describe_member(member: Member) -> ArchivedFile:
    try:
        check_archived_path(member.path)
    except ValueError as error:
        what = "a file with this name cannot be archived"
        where, remedy = repr(member.path[:200]), "rename or remove it"
        raise UsageError(what, id="archive.path", where=where, remedy=remedy) from error
    with _open_member(member) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return ArchivedFile(member.path, file.seek(0, os.SEEK_END), digest)


@contextmanager
def _open_member(member: Member) -> Iterator[io.BytesIO | io.BufferedReader]:
    if isinstance(member.source, bytes):
        yield io.BytesIO(member.source)
    else:
        with member.source.open("rb") as file:
            yield file


def _write_tar(file: BinaryIO, manifest: ArchiveManifest, members: Sequence[Member]) -> None:
    """The same members at the same time make the same bytes."""
    fields = json.dumps(manifest_fields(manifest), indent=1, allow_nan=False).encode() + b"\n"
    sums = {MANIFEST: hashlib.sha256(fields).hexdigest()}
    sums |= {each.path: each.sha256 for each in manifest.files}
    lines = "".join(f"{digest}  {path}\n" for path, digest in sums.items()).encode()
    seconds = int(manifest.made)
    packed = gzip.GzipFile("", "wb", LEVEL, file, mtime=seconds)
    with packed, tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for member in (Member(MANIFEST, fields), Member(SUMS, lines), *members):
            with _open_member(member) as content:
                size = content.seek(0, os.SEEK_END)
                content.seek(0)
                info = tarfile.TarInfo(f"{manifest.name}/{member.path}")
                info.size, info.mtime, info.mode = size, seconds, 0o644
                tar.addfile(info, content)
