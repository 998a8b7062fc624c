"""Reads files and names their contents; in threads where there are many."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from orchestrator.adapters.sync.ignore_rules import IGNORE_FILE
from orchestrator.core.base.errors import PreflightError, UsageError
from orchestrator.core.base.manifest import DIGEST_BYTES

BUFFER_BYTES = 1024 * 1024
HASH_THREADS = 4
HASH_BATCH = 256


def files_changed_error(where: object) -> PreflightError:
    """The files are not those that the snapshot was taken of."""
    return PreflightError(
        "the file changed while it was synced",
        id="OR-SYNC-003",
        where=where,
        why="a run must use one state of the code on all nodes",
        remedy=f"run the command again, or list the file in {IGNORE_FILE} if it keeps changing",
    )


def digests_of_files(work: list[tuple[str, int]]) -> Iterator[bytes]:
    """The digests of (path, size), in order; see :func:`digest_of_file`."""
    batches = [work[i : i + HASH_BATCH] for i in range(0, len(work), HASH_BATCH)]
    if len(batches) < 2:
        for batch in batches:
            yield from _read_batch(batch)
        return
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        for digests in pool.map(_read_batch, batches):
            yield from digests


def _read_batch(batch: list[tuple[str, int]]) -> list[bytes]:
    return [digest_of_file(path, size) for path, size in batch]


def digest_of_file(path: str, size: int) -> bytes:
    """The digest of the first ``size`` bytes, so that a file that only grows may travel.

    Raises ``UsageError`` if it cannot be read, ``PreflightError`` if it is shorter.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    left = size
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            while left:
                data = os.read(fd, min(left, BUFFER_BYTES))
                if not data:
                    raise files_changed_error(path)
                digest.update(data)
                left -= len(data)
        finally:
            os.close(fd)
    except FileNotFoundError as error:
        raise files_changed_error(path) from error
    except OSError as error:
        raise UsageError(
            "the file cannot be read",
            id="OR-SYNC-002",
            where=path,
            why=error.strerror or str(error),
            remedy=f"make it readable, or list it in {IGNORE_FILE}",
        ) from error
    return digest.digest()
