"""What a run left in ``output/``: a list with digests, and bytes by offset; nothing outside it.

Links are never followed: one that stays inside is offered as a link, with a relative target; a
folder that holds nothing is offered by its path. What is not offered is listed with the reason.
Bytes of what a rank offers to the coordinator while it runs are read in the same way.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import unicodedata

from orchestrator.node_agent.base.agent_errors import ABSENT, BAD_REQUEST, AgentFault, shorten_value
from orchestrator.node_agent.base.node_layout import AttemptLayout, NodeLayout
from orchestrator.node_agent.base.wire import read_field
from orchestrator.node_agent.code.node_manifest import target_fault

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    Request = Mapping[str, Any]

MAX_FILES = 50_000
MAX_DEPTH = 32
MAX_PATH_BYTES = 1024
MAX_FETCH_BYTES = 4 * 1024 * 1024
CHANGED = "it changed while it was listed"
LINK, FOLDER = "a link", "an empty folder"
OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
OPEN_DIRECTORY = os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC


def _attempt(layout: NodeLayout, request: Request) -> AttemptLayout:
    run = layout.run(request.get("run"), request.get("node"))
    return run.attempt(request.get("attempt"))


def list_outputs(layout: NodeLayout, request: Request) -> tuple[dict[str, Any], bytes]:
    """The payload is JSON: ``{"files": [{path, bytes, sha256}], "links": [{path, target}],
    "folders": [path], "skipped": [{path, why}]}``; ``folders`` are those that hold nothing.
    ``paths``: describe only these files, which changed meanwhile.
    """
    attempt = _attempt(layout, request)
    again = read_field(request, "paths", list, [])
    listing = _OutputListing(attempt.output)
    if os.path.isdir(attempt.output):
        root = os.open(attempt.output, OPEN_DIRECTORY)
        try:
            named = [(check_relative(path), "") for path in again]
            listing.add(root, named or _walk(root, "", 0))
        finally:
            os.close(root)
    return {"count": len(listing.files)}, listing.encode()


class _OutputListing:
    """What is offered of the folder ``output``, and what is not."""

    def __init__(self, output: str) -> None:
        self.files: list[dict[str, Any]] = []
        self._links: list[dict[str, str]] = []
        self._folders: list[str] = []
        self._skipped: list[dict[str, str]] = []
        self._output = os.path.realpath(output)

    def add(self, root: int, found: Iterable[tuple[str, str]]) -> None:
        """Each of ``found`` goes where it belongs. Raises :class:`AgentFault` for too many."""
        for path, why in found:
            if self._count() >= MAX_FILES:
                raise AgentFault(BAD_REQUEST, f"more than {MAX_FILES} files in output/")
            if why == LINK:
                self._add_link(root, path)
                continue
            if why == FOLDER:
                self._folders.append(path)
                continue
            described = None if why else _describe(root, path)
            if described is None:
                self._skipped.append({"path": path, "why": why or CHANGED})
            else:
                self.files.append(described)

    def _count(self) -> int:
        return len(self.files) + len(self._links) + len(self._folders) + len(self._skipped)

    def _add_link(self, root: int, path: str) -> None:
        target, why = _safe_target(root, self._output, path)
        if why:
            self._skipped.append({"path": path, "why": why})
        else:
            self._links.append({"path": path, "target": target})

    def encode(self) -> bytes:
        parts = {
            "files": self.files,
            "links": self._links,
            "folders": self._folders,
            "skipped": self._skipped,
        }
        return json.dumps(parts).encode()


def _safe_target(root: int, output: str, path: str) -> tuple[str, str]:
    """(where the link points to from its own folder, "") or ("", why it is not offered)."""
    above, _, name = path.rpartition("/")
    try:
        fd = _open_below(root, above, OPEN_DIRECTORY) if above else os.dup(root)
        try:
            target = os.readlink(name, dir_fd=fd)
        finally:
            os.close(fd)
    except OSError:
        return "", CHANGED
    told = "a link to %s, outside the outputs" % shorten_value(_printable(target))
    if target_fault(path, target):
        folder = os.path.join(output, above)
        target = os.path.relpath(os.path.realpath(os.path.join(folder, target)), folder)
    good = not target_fault(path, target) and _printable(target) == target
    return (target, "") if good else ("", told)


def _walk(root: int, below: str, depth: int) -> Iterator[tuple[str, str]]:
    """(path, why it is skipped, :data:`LINK`, :data:`FOLDER`, or ""), in order."""
    try:
        fd = os.dup(root) if not below else _open_below(root, below, OPEN_DIRECTORY)
    except OSError:
        yield below, CHANGED
        return
    try:
        with os.scandir(fd) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
            if below and not found:
                yield below, FOLDER
            for entry in found:
                path = below + "/" + entry.name if below else entry.name
                why = _objection(entry, path, depth)
                if why is None:
                    yield from _walk(root, path, depth + 1)
                else:
                    yield _printable(path), why
    finally:
        os.close(fd)


def _objection(entry: os.DirEntry[str], path: str, depth: int) -> str | None:
    """Why not to offer it; ``""`` for a file to offer; None for a directory to enter."""
    try:
        mode = entry.stat(follow_symlinks=False).st_mode
    except OSError:
        return CHANGED
    if _printable(path) != path or len(path.encode()) > MAX_PATH_BYTES:
        return "its name is too long or not printable"
    if stat.S_ISDIR(mode):
        return None if depth < MAX_DEPTH else "too deep"
    if stat.S_ISLNK(mode):
        return LINK
    return "" if stat.S_ISREG(mode) else "not a regular file"


def _printable(path: str) -> str:
    """``path`` without what is not UTF-8, controls a terminal, or cannot be seen."""
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else "?" for c in path)


def _describe(root: int, path: str) -> dict[str, Any] | None:
    """Size and digest as of now; None if another kind of file took its place meanwhile."""
    digest = hashlib.sha256()
    try:
        fd = _open_below(root, path, OPEN)
    except OSError:
        return None
    with os.fdopen(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            return None
        size = 0
        while size < status.st_size:  # a survivor may make it longer for ever
            chunk = file.read(min(1024 * 1024, status.st_size - size))
            if not chunk:
                break
            digest.update(chunk)
            size += len(chunk)
    return {"path": path, "bytes": size, "sha256": digest.hexdigest()}


def _open_below(root: int, path: str, flags: int) -> int:
    """Open ``path`` step by step from ``root`` without following any link."""
    parts = path.split("/")
    here = os.dup(root)
    try:
        for part in parts[:-1]:
            above, here = here, os.open(part, OPEN_DIRECTORY, dir_fd=here)
            os.close(above)
        return os.open(parts[-1], flags, dir_fd=here)
    finally:
        os.close(here)


def check_relative(path: object) -> str:
    """A relative path of plain components. Raises :class:`AgentFault`."""
    good = isinstance(path, str) and 0 < len(path) <= MAX_PATH_BYTES and "\0" not in path
    if not good or any(part in ("", ".", "..") for part in str(path).split("/")):
        raise AgentFault(BAD_REQUEST, f"not a path below output/: {shorten_value(path)}")
    return str(path)


def read_output(layout: NodeLayout, request: Request) -> tuple[dict[str, Any], bytes]:
    """At most ``length`` bytes of a file in ``output/`` from ``offset``; fewer at its end.

    ``area``: ``output``, or ``exchange`` for what ranks offer while they run.
    """
    path = check_relative(request.get("path"))
    offset, length = read_field(request, "offset", int), read_field(request, "length", int)
    if offset < 0 or not 0 < length <= MAX_FETCH_BYTES:
        raise AgentFault(BAD_REQUEST, f"'length' must be 1 to {MAX_FETCH_BYTES}, 'offset' positive")
    attempt = _attempt(layout, request)
    areas = {"output": attempt.output, "exchange": attempt.offered}
    area = read_field(request, "area", str, "output")
    if area not in areas:
        raise AgentFault(BAD_REQUEST, f"no such area: {shorten_value(area)}")
    try:
        root = os.open(areas[area], OPEN_DIRECTORY)
        try:
            fd = _open_below(root, path, OPEN)
        finally:
            os.close(root)
    except OSError as error:
        raise AgentFault(ABSENT, f"{area}/{path}: {error.strerror}") from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise AgentFault(ABSENT, f"{area}/{path}: not a regular file")
        return {"size": status.st_size}, os.pread(fd, length, offset)
    finally:
        os.close(fd)
