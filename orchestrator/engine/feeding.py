"""What travels to a rank while it runs, from memory or from a file."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from orchestrator.edges.agent.channel import Payload

CHUNK_BYTES = 1024 * 1024


def sha256_of(content: bytes | Path) -> str:
    """The digest in hexadecimal. Raises ``OSError``."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def payload_of(path: Path) -> Payload:
    """A file as a payload that is never in memory as a whole. Raises ``OSError``."""
    return Payload(size=path.stat().st_size, chunks=_chunks(path))


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
