"""What a node says it has in its output folder: paths proven to stay below the artifact folder."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.core.base.errors import RunFailed
from orchestrator.core.base.manifest import folders_of, target_fault

MAX_FILES = 50_000
MAX_PATH_BYTES = 1024
MAX_SHOWN = 400


@dataclass(frozen=True, slots=True)
class OfferedOutput:
    """A file that the node offers: a relative path, its size and SHA-256."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Listing:
    """What a node has to offer. ``links``: path -> target; ``folders``: those that hold nothing;
    ``left_out``: path -> why.
    """

    files: tuple[OfferedOutput, ...]
    links: Mapping[str, str]
    folders: tuple[str, ...]
    left_out: Mapping[str, str]


def parse_listing(node: str, payload: bytes) -> Listing:
    """The node's listing, with every path and link proven to stay below the artifact folder."""
    try:
        document = json.loads(payload)
        parts = ("files", "links", "folders", "skipped")
        files, links, folders, skipped = (document.get(part, []) for part in parts)
        if sum(map(len, (files, links, folders, skipped))) > MAX_FILES:
            raise ValueError(f"more than {MAX_FILES} files")
        listing = Listing(
            files=tuple(_parse_output(entry) for entry in document["files"]),
            links={_check_path(entry["path"]): _link_target(entry) for entry in links},
            folders=tuple(_check_path(path) for path in folders),
            left_out={_shown_text(entry["path"]): _shown_text(entry["why"]) for entry in skipped},
        )
        paths = {*(output.path for output in listing.files), *listing.links}
        named = paths | set(listing.folders)
        if len(named) < len(listing.files) + len(links) + len(folders):
            raise ValueError("a path is named twice")
        if nested := paths & folders_of(named):
            raise ValueError(f"both a file and a folder: {min(nested)[:200]!r}")
        return listing
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RunFailed(
            "the node's list of outputs is not acceptable", id="OR-COLLECT-001", where=node,
            why=str(error)[:300],
        ) from error  # fmt: skip


def _parse_output(entry: Any) -> OfferedOutput:
    path, size, digest = _check_path(entry["path"]), entry["bytes"], entry["sha256"]
    if type(size) is not int or size < 0 or not isinstance(digest, str):
        raise ValueError(f"{path}: no size or digest")
    return OfferedOutput(path, size, digest)


def _check_path(path: Any) -> str:
    """``path`` if it is a relative one of plain, visible names."""
    parts = path.split("/") if isinstance(path, str) else [""]
    if any(part in {"", ".", ".."} or not _is_visible(part) for part in parts):
        raise ValueError(f"unsafe path {str(path)[:200]!r}")
    if len(path.encode()) > MAX_PATH_BYTES or max(len(part.encode()) for part in parts) > 255:
        raise ValueError(f"a name that is too long: {path[:80]!r}")
    return str(path)


def _link_target(entry: Any) -> str:
    """Where a link points to, if that is below the artifact folder whatever else is linked."""
    path, target = _check_path(entry["path"]), entry["target"]
    if not isinstance(target, str) or not _is_visible(target) or target_fault(path, target):
        raise ValueError(f"unsafe link {path[:80]!r} -> {str(target)[:80]!r}")
    return target


def _is_visible(text: str) -> bool:
    return all(c.isprintable() or unicodedata.category(c) == "Zs" for c in text)


def _shown_text(text: Any) -> str:
    if not isinstance(text, str):
        raise TypeError(f"not a text: {str(text)[:80]!r}")
    return text.encode(errors="replace").decode()[:MAX_SHOWN]
