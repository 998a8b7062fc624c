"""Pulls a node's outputs into the run folder: bounded, verified by digest, complete or absent."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from orchestrator.adapters.agent_client.channel import AgentError
from orchestrator.adapters.store.atomic_files import make_private_dir, write_json
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.core.base.errors import RunFailed
from orchestrator.core.run.events import Collected
from orchestrator.engine.node.link import NodeLink
from orchestrator.engine.node.node_session import ABSENT
from orchestrator.parsing.replies.output_listing import Listing, OfferedOutput, parse_listing

CHUNK_BYTES = 4 * 1024 * 1024
QUICK_S = 60.0
PARTIAL = ".partial-"
# How often a file is asked for that changes while it is copied.
MAX_ROUNDS = 3
MAX_NAMED = 20
KEEPS_CHANGING = "it keeps changing while it is copied"


class ChangedOutput(RunFailed):
    """A file is no longer what the node announced."""


async def collect_outputs(
    link: NodeLink, run_id: str, attempt: int, folder: RunFolder, *, timeout_s: float
) -> Collected:
    """Everything below ``output/`` of the attempt, empty folders too; what an earlier attempt left
    moves aside.

    A file that changes while it is copied is asked for again; what does not come all the same is
    in the result, and all of it in :attr:`RunFolder.left_out`. Raises ``OrchestrateError``,
    ``TimeoutError``, ``OSError``.
    """
    node = link.spec.name
    named = {"run": run_id, "node": node, "attempt": attempt}
    listing = await _list(link, named, timeout_s)
    root = folder.node_artifacts(node)
    _require_room(node, sum(output.bytes for output in listing.files), folder)
    _remove_unfinished(root)
    _set_aside(folder, node, attempt - 1)
    async with asyncio.timeout(timeout_s):
        fetched, changed = await _fetch_all(link, named, listing.files, root, timeout_s)
    for path in listing.folders:
        make_private_dir(root / path)
    for path, target in listing.links.items():
        _make_link(root / path, target)
    left_out = {**listing.left_out, **changed}
    _tell_left_out(folder.left_out(node), left_out)
    return Collected(
        node=node,
        files=len(fetched),
        bytes=sum(output.bytes for output in fetched),
        links=len(listing.links),
        left=len(left_out),
        left_out=tuple(f"{path}: {why}" for path, why in islice(left_out.items(), MAX_NAMED)),
    )


async def _list(link: NodeLink, named: Mapping[str, object], timeout_s: float) -> Listing:
    reply = await link.request("outputs", named, timeout_s=timeout_s)
    return parse_listing(link.spec.name, reply.payload)


async def _fetch_all(
    link: NodeLink,
    named: Mapping[str, object],
    files: Sequence[OfferedOutput],
    root: Path,
    timeout_s: float,
) -> tuple[list[OfferedOutput], dict[str, str]]:
    """(the files that came, the paths of those that did not and why)."""
    fetched: list[OfferedOutput] = []
    left_out: dict[str, str] = {}
    for _ in range(MAX_ROUNDS):
        changed = []
        for output in files:
            try:
                await fetch_output(link, named, output, root / output.path)
                fetched.append(output)
            except ChangedOutput:
                changed.append(output.path)
        if not changed:
            return fetched, left_out
        listing = await _list(link, {**named, "paths": changed}, timeout_s)
        asked = set(changed)
        files = [output for output in listing.files if output.path in asked]
        left_out |= {path: why for path, why in listing.left_out.items() if path in asked}
    return fetched, left_out | dict.fromkeys((output.path for output in files), KEEPS_CHANGING)


def _tell_left_out(path: Path, left_out: Mapping[str, str]) -> None:
    """All of it, for whoever looks for a file; no file where nothing is missing."""
    path.unlink(missing_ok=True)
    if left_out:
        make_private_dir(path.parent)
        write_json(path, left_out)


def _require_room(node: str, announced: int, folder: RunFolder) -> None:
    """Before the first byte: a disk that fills up ends other runs as well."""
    free = shutil.disk_usage(folder.path).free
    if announced > free:
        raise RunFailed(
            f"the node offers {announced} bytes, and {free} are free here",
            id="OR-COLLECT-004",
            where=node,
            remedy=f"they stay on the node until: orchestrate clean {folder.run_id}",
        )


def _set_aside(folder: RunFolder, node: str, replaced: int) -> None:
    """Once: a repeated collection of the same attempt finds that it was done."""
    aside, root = folder.node_artifacts(node, replaced), folder.node_artifacts(node)
    if replaced >= 1 and not aside.exists():
        make_private_dir(root)
        root.rename(aside)


def _remove_unfinished(root: Path) -> None:
    """What a coordinator was writing when it was killed, and links: all of it is made again."""
    for path in root.rglob("*"):
        if path.is_symlink() or (path.name.startswith(PARTIAL) and path.is_file()):
            path.unlink()


def _make_link(path: Path, target: str) -> None:
    make_private_dir(path.parent)
    path.symlink_to(target)


async def fetch_output(
    link: NodeLink, attempt: Mapping[str, object], output: OfferedOutput, target: Path
) -> None:
    """One file, complete and verified, or absent.

    Raises :class:`ChangedOutput` if it is not what was announced, ``OrchestrateError`` and
    ``OSError``.
    """
    with _whole(target) as file:
        try:
            digest = await _copy(link, attempt, output, file)
        except AgentError as error:
            if error.id != ABSENT:
                raise
            digest = ""
        if digest != output.sha256:
            raise ChangedOutput(
                f"{output.path} is not the file that the node announced",
                id="OR-COLLECT-002",
                where=link.spec.name,
                remedy="the file was written to after its rank ended, or the disk is failing",
            )


@contextlib.contextmanager
def _whole(target: Path) -> Iterator[BinaryIO]:
    """A new file that takes its name when it is complete; nothing of it stays otherwise."""
    make_private_dir(target.parent)
    # A name that no node can guess: what it offers must not meet what is half written.
    fd, name = tempfile.mkstemp(dir=target.parent, prefix=PARTIAL)
    partial = Path(name)
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


async def _copy(
    link: NodeLink, attempt: Mapping[str, object], output: OfferedOutput, file: BinaryIO
) -> str:
    """The digest of what was written."""
    digest = hashlib.sha256()
    offset = 0
    while offset < output.bytes:
        chunk = await _chunk(link, attempt, output, offset)
        digest.update(chunk)
        file.write(chunk)
        offset += len(chunk)
    return digest.hexdigest()


async def _chunk(
    link: NodeLink, attempt: Mapping[str, object], output: OfferedOutput, offset: int
) -> bytes:
    length = min(CHUNK_BYTES, output.bytes - offset)
    fields = {**attempt, "path": output.path, "offset": offset, "length": length}
    reply = await link.request("fetch", fields, timeout_s=QUICK_S)
    if not 0 < len(reply.payload) <= length:
        raise ChangedOutput(
            f"{output.path} is shorter than announced", id="OR-COLLECT-002", where=link.spec.name
        )
    return reply.payload
