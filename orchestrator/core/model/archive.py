"""What an archive says of itself: its files with their digests, and what they are evidence of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ARCHIVE_FORMAT = "orchestrate-archive-1"


@dataclass(frozen=True, slots=True)
class ArchivedFile:
    """A file of an archive: its path in it with ``/``, its length, its SHA-256 in hexadecimal."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveManifest:
    """``kind``: what made it, such as ``suite``. ``name``: the folder that its files lie in.
    ``made``: seconds since the epoch. ``about``: JSON data that only readers of this kind know.
    """

    kind: str
    name: str
    made: float
    version: str
    files: tuple[ArchivedFile, ...]
    about: Mapping[str, Any] = field(default_factory=dict)
