"""All outputs of divisible work in one file, in input order: complete and verified, or absent."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from orchestrator.adapters.store.atomic_files import sync_dir, write_atomic
from orchestrator.core.base.errors import InternalError
from orchestrator.core.sharing.ledger import Ledger, OutputLocation
from orchestrator.parsing.replies.sample_records import merged_line

MERGED = "samples.jsonl"
DIGEST = "samples.sha256"
MAX_OPEN = 64


def merge_samples(ledger: Ledger, sources: Sequence[Path], folder: Path) -> None:
    """Write every sample's accepted output, which is read again from where its worker told it.

    ``sources`` are the files that the ledger's places count. One line is in memory at a time.
    Raises ``ValueError`` unless every sample has exactly one output, :class:`InternalError` for one
    that is no longer what was accepted, ``OSError``.
    """
    if not ledger.complete:
        raise ValueError("samples are missing or in conflict")
    digest = hashlib.sha256()
    target = folder / MERGED
    staging = folder / f".{MERGED}.{os.getpid()}"
    try:
        with staging.open("wb") as merged:
            for line in _lines(ledger, sources):
                digest.update(line)
                merged.write(line)
            merged.flush()
            os.fsync(merged.fileno())
        staging.replace(target)
    finally:
        staging.unlink(missing_ok=True)
    sync_dir(folder)
    write_atomic(folder / DIGEST, f"{digest.hexdigest()}  {MERGED}\n".encode())


def remove_merged(folder: Path) -> None:
    """What was merged before does not count any more."""
    for name in (DIGEST, MERGED):
        (folder / name).unlink(missing_ok=True)


def _lines(ledger: Ledger, sources: Sequence[Path]) -> Iterator[bytes]:
    with ExitStack() as stack:
        files: OrderedDict[int, BinaryIO] = OrderedDict()
        stack.callback(lambda: [file.close() for file in files.values()])
        for index in range(ledger.total):
            place = ledger.place(index)
            assert place is not None  # the ledger is complete
            line = _line(_file(files, sources, place.source), place)
            if hashlib.sha256(line).digest() != ledger.digest(index):
                raise InternalError(
                    f"the output of sample {index} is not what was accepted",
                    id="OR-WORK-005",
                    where=sources[place.source],
                    why="the file changed since",
                    remedy="begin another run",
                )
            yield line + b"\n"


def _file(files: OrderedDict[int, BinaryIO], sources: Sequence[Path], source: int) -> BinaryIO:
    """The open file, of which there are never too many."""
    if source not in files:
        if len(files) >= MAX_OPEN:
            files.popitem(last=False)[1].close()
        files[source] = sources[source].open("rb")
    files.move_to_end(source)
    return files[source]


def _line(file: BinaryIO, place: OutputLocation) -> bytes:
    try:
        return merged_line(os.pread(file.fileno(), place.size, place.offset))
    except ValueError:
        return b""
