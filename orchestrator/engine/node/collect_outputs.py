"""Pulls a node's outputs into the run folder: bounded, verified by digest, complete or absent."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.adapters.store.atomic_files import make_private_dir
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.core.base.errors import RunFailed
from orchestrator.core.run.events import Collected
from orchestrator.engine.node.link import NodeLink

CHUNK_BYTES = 4 * 1024 * 1024
MAX_FILES = 50_000
MAX_PATH_BYTES = 1024
QUICK_S = 60.0
PARTIAL = ".partial-"


@dataclass(frozen=True, slots=True)
class OfferedOutput:
    """A file that the node offers: a relative path, its size and SHA-256."""

    path: str
    bytes: int
    sha256: str


async def collect_outputs(
    link: NodeLink, run_id: str, attempt: int, folder: RunFolder, *, timeout_s: float
) -> Collected:
    """Everything below ``output/`` of the attempt; what an earlier attempt left moves aside.

    Raises ``OrchestrateError``, ``TimeoutError``.
    """
    node = link.spec.name
    named = {"run": run_id, "node": node, "attempt": attempt}
    reply = await link.request("outputs", named, timeout_s=timeout_s)
    outputs = parse_outputs(node, reply.payload)
    root = folder.node_artifacts(node)
    _require_room(node, sum(output.bytes for output in outputs), folder)
    _remove_partial(root)
    _set_aside(folder, node, attempt - 1)
    async with asyncio.timeout(timeout_s):
        for output in outputs:
            await fetch_output(link, named, output, root / output.path)
    return Collected(node=node, files=len(outputs), bytes=sum(o.bytes for o in outputs))


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


def _remove_partial(root: Path) -> None:
    """What a coordinator was writing when it was killed; all of it is fetched again."""
    for path in root.rglob(f"{PARTIAL}*"):
        if path.is_file() or path.is_symlink():
            path.unlink()


def parse_outputs(node: str, payload: bytes) -> list[OfferedOutput]:
    """The node's listing, with every path proven to stay below the artifact folder."""
    try:
        files = json.loads(payload)["files"]
        if len(files) > MAX_FILES:
            raise ValueError(f"{len(files)} files; at most {MAX_FILES}")
        outputs = [_output(entry) for entry in files]
        if len({output.path for output in outputs}) < len(outputs):
            raise ValueError("a path is named twice")
        return outputs
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunFailed(
            "the node's list of outputs is not acceptable", id="OR-COLLECT-001", where=node,
            why=str(error)[:300],
        ) from error  # fmt: skip


def _output(entry: Any) -> OfferedOutput:
    path, size, digest = entry["path"], entry["bytes"], entry["sha256"]
    parts = path.split("/") if isinstance(path, str) else [""]
    if any(part in {"", ".", ".."} or not part.isprintable() for part in parts):
        raise ValueError(f"unsafe path {str(path)[:200]!r}")
    if len(path.encode()) > MAX_PATH_BYTES or max(len(part.encode()) for part in parts) > 255:
        raise ValueError(f"a name that is too long: {path[:80]!r}")
    if type(size) is not int or size < 0 or not isinstance(digest, str):
        raise ValueError(f"{path}: no size or digest")
    return OfferedOutput(path, size, digest)


async def fetch_output(
    link: NodeLink, attempt: Mapping[str, object], output: OfferedOutput, target: Path
) -> None:
    """One file, complete and verified, or absent. Raises ``OrchestrateError``, ``OSError``."""
    with _whole(target) as file:
        digest = await _copy(link, attempt, output, file)
        if digest != output.sha256:
            raise RunFailed(
                f"{output.path} arrived with another digest than the node announced",
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
        raise RunFailed(
            f"{output.path} is shorter than announced", id="OR-COLLECT-003", where=link.spec.name
        )
    return reply.payload
