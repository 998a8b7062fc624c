"""Pulls a node's outputs into the run folder: bounded, verified by digest, complete or absent."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.core.errors import RunFailed
from orchestrator.core.events import Collected
from orchestrator.edges.store.files import make_private_dir
from orchestrator.edges.store.layout import RunFolder
from orchestrator.engine.node_link import NodeLink

CHUNK_BYTES = 4 * 1024 * 1024
MAX_FILES = 50_000
QUICK_S = 60.0


@dataclass(frozen=True, slots=True)
class Output:
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
    reply = await link.request("outputs", named, timeout_s=QUICK_S)
    outputs = parse_outputs(node, reply.payload)
    root = folder.node_artifacts(node)
    _set_aside(folder, node, attempt - 1)
    async with asyncio.timeout(timeout_s):
        for output in outputs:
            await _fetch(link, named, output, root / output.path)
    return Collected(node=node, files=len(outputs), bytes=sum(o.bytes for o in outputs))


def _set_aside(folder: RunFolder, node: str, replaced: int) -> None:
    """Once: a repeated collection of the same attempt finds that it was done."""
    aside, root = folder.node_artifacts(node, replaced), folder.node_artifacts(node)
    if replaced >= 1 and not aside.exists():
        make_private_dir(root)
        root.rename(aside)


def parse_outputs(node: str, payload: bytes) -> list[Output]:
    """The node's listing, with every path proven to stay below the artifact folder."""
    try:
        files = json.loads(payload)["files"]
        if len(files) > MAX_FILES:
            raise ValueError(f"{len(files)} files; at most {MAX_FILES}")
        return [_output(entry) for entry in files]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunFailed(
            "the node's list of outputs is not acceptable", id="OR-COLLECT-001", where=node,
            why=str(error)[:300],
        ) from error  # fmt: skip


def _output(entry: Any) -> Output:
    path, size, digest = entry["path"], entry["bytes"], entry["sha256"]
    parts = path.split("/") if isinstance(path, str) else [""]
    if any(part in {"", ".", ".."} or not part.isprintable() for part in parts):
        raise ValueError(f"unsafe path {path!r}")
    if type(size) is not int or size < 0 or not isinstance(digest, str):
        raise ValueError(f"{path}: no size or digest")
    return Output(path, size, digest)


async def _fetch(
    link: NodeLink, attempt: Mapping[str, object], output: Output, target: Path
) -> None:
    make_private_dir(target.parent)
    partial = target.with_name(f".{target.name}.part")
    digest = hashlib.sha256()
    with partial.open("wb") as file:
        offset = 0
        while offset < output.bytes:
            chunk = await _chunk(link, attempt, output, offset)
            digest.update(chunk)
            file.write(chunk)
            offset += len(chunk)
        file.flush()
        os.fsync(file.fileno())
    if digest.hexdigest() != output.sha256:
        partial.unlink()
        raise RunFailed(
            f"{output.path} arrived with another digest than the node announced",
            id="OR-COLLECT-002",
            where=link.spec.name,
            remedy="the file was written to after its rank ended, or the disk is failing",
        )
    partial.replace(target)


async def _chunk(
    link: NodeLink, attempt: Mapping[str, object], output: Output, offset: int
) -> bytes:
    length = min(CHUNK_BYTES, output.bytes - offset)
    fields = {**attempt, "path": output.path, "offset": offset, "length": length}
    reply = await link.request("fetch", fields, timeout_s=QUICK_S)
    if not 0 < len(reply.payload) <= length:
        raise RunFailed(
            f"{output.path} is shorter than announced", id="OR-COLLECT-003", where=link.spec.name
        )
    return reply.payload
