"""What travels to a rank while it runs, from memory or from a file."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

# On a slow link a request must not keep others waiting for long: a lease is renewed between slices.
SLICE_BYTES = 4 * 1024 * 1024


def sha256_of(content: bytes | Path) -> str:
    """The digest in hexadecimal. Raises ``OSError``."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


async def slices_of(content: bytes | Path) -> AsyncIterator[tuple[int, int, bytes]]:
    """(offset, size of the whole, bytes), in order, at least one. Raises ``OSError``."""
    if isinstance(content, bytes):
        yield 0, len(content), content
        return
    total = (await asyncio.to_thread(content.stat)).st_size
    with content.open("rb") as file:
        for offset in range(0, max(total, 1), SLICE_BYTES):
            yield offset, total, await asyncio.to_thread(file.read, SLICE_BYTES)
