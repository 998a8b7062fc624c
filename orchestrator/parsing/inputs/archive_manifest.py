"""``manifest.json`` of an archive, which may come from another machine and is not trusted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from orchestrator.core.model.archive import ARCHIVE_FORMAT, ArchivedFile, ArchiveManifest
from orchestrator.parsing.inputs.validation import Strict

MAX_ARCHIVED_FILES = 100_000
MAX_PATH = 1024


def check_archived_path(path: str) -> str:
    """``path`` if it stays inside of the folder that it is unpacked in. Raises ``ValueError``."""
    parts = path.split("/")
    if not path.isprintable() or "\\" in path or {"", ".", ".."} & set(parts):
        raise ValueError(f"not a path inside of an archive: {path[:80]!r}")
    return path


class ArchivedFileEntry(Strict):
    """One file."""

    path: Annotated[str, Field(max_length=MAX_PATH), AfterValidator(check_archived_path)]
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class ArchiveManifestFile(Strict):
    """The whole file."""

    format: Literal["orchestrate-archive-1"]
    kind: str = Field(pattern=r"^[a-z][a-z-]{0,39}$")
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$")
    made: float = Field(ge=0, allow_inf_nan=False)
    version: str = Field(max_length=80)
    files: list[ArchivedFileEntry] = Field(max_length=MAX_ARCHIVED_FILES)
    about: dict[str, Any]


def parse_manifest(content: bytes) -> ArchiveManifest:
    """Raises ``ValueError`` for what is not a manifest, or names a path twice."""
    try:
        entry = ArchiveManifestFile.model_validate(json.loads(content))
    except (ValidationError, RecursionError) as error:
        raise ValueError("its manifest is not one of this format") from error
    if len({file.path for file in entry.files}) < len(entry.files):
        raise ValueError("its manifest names a path twice")
    return ArchiveManifest(
        kind=entry.kind,
        name=entry.name,
        made=entry.made,
        version=entry.version,
        files=tuple(ArchivedFile(file.path, file.bytes, file.sha256) for file in entry.files),
        about=entry.about,
    )


def manifest_fields(manifest: ArchiveManifest) -> Mapping[str, Any]:
    """What the file holds."""
    files = [
        {"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in manifest.files
    ]
    return {
        "format": ARCHIVE_FORMAT,
        "kind": manifest.kind,
        "name": manifest.name,
        "made": manifest.made,
        "version": manifest.version,
        "about": manifest.about,
        "files": files,
    }
