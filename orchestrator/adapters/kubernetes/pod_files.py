"""What pods are given as files: the agent, the plan, and the code as it travels over SSH."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Mapping
from functools import cache

from orchestrator.adapters.agent_client.package import EPOCH, agent_package
from orchestrator.adapters.sync.code_snapshot import Snapshot
from orchestrator.adapters.sync.file_digests import files_changed_error
from orchestrator.adapters.sync.pack import ContentChanged, PackPart
from orchestrator.core.base.codec import to_json
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.request import RunRequest

AGENT, RUN, MANIFEST = "agent.zip", "run.json.gz", "manifest"
RUN_VERSION = 1
MAX_COMPRESSION = 9


def plan_files(request: RunRequest, plan: Plan) -> dict[str, bytes]:
    """What the pods of ``plan`` run, and what it was made of; the same bytes each time."""
    told = {"version": RUN_VERSION, "request": to_json(request), "plan": to_json(plan)}
    text = json.dumps(told, separators=(",", ":")).encode()
    return {AGENT: small_agent(), RUN: gzip.compress(text, MAX_COMPRESSION, mtime=0)}


@cache
def small_agent() -> bytes:
    """The agent's package, compressed: a ConfigMap has little room."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(agent_package().archive)) as package,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=MAX_COMPRESSION) as small,
    ):
        for name in package.namelist():
            entry = zipfile.ZipInfo(name, EPOCH)
            small.writestr(entry, package.read(name), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def code_files(snapshot: Snapshot) -> dict[str, bytes]:
    """The manifest of ``snapshot`` and its contents in parts, in the order of their names.

    Raises ``PreflightError`` if files changed since the snapshot was taken.
    """
    return {MANIFEST: snapshot.packed_manifest, **asyncio.run(_parts(snapshot))}


def _smaller(part: PackPart) -> bytes:
    """The part compressed for size: over SSH it is compressed for speed."""
    if not part.compressed:
        return part.data
    return zlib.compress(zlib.decompress(part.data), MAX_COMPRESSION)


async def _parts(snapshot: Snapshot) -> Mapping[str, bytes]:
    contents = snapshot.contents
    count = len(contents.blobs)
    every = ((1 << count) - 1).to_bytes((count + 7) // 8, "little")
    parts = {}
    try:
        async with contents.pack(every) as pack:
            for number in range(len(pack)):
                part = await pack.part(number)
                parts[f"part-{number:06}{'.z' if part.compressed else ''}"] = _smaller(part)
    except ContentChanged as error:
        raise files_changed_error(error.path) from error
    return parts
