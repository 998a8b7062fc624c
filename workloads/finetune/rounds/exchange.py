"""What a node and the coordinator hand each other while nodes train by themselves, over SSH alone.

Up: lines in `exchange-<R>.jsonl`, and files in `out/` that a line announces with size and digest.
Down: files `in/rank-<R>/<number>.json` or `.bin` that appear complete; their digest was verified
when they arrived on the node.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL_S = 0.02
MAX_HEADER_BYTES = 64 * 1024 * 1024
MAGIC = b"ORU1"


class ExchangeFailed(RuntimeError):
    """The coordinator ended the exchange, or stopped answering."""


@dataclass(frozen=True, slots=True)
class Feed:
    """What came: a header, and the bytes after it if it was a file."""

    header: dict[str, Any]
    content: memoryview


class Exchange:
    """This rank's end; `folder` is the attempt's `$ORCHESTRATE_EXCHANGE_DIR`."""

    def __init__(self, folder: Path, rank: int) -> None:
        self._lines = folder / f"exchange-{rank}.jsonl"
        self._inbox = folder / "in" / f"rank-{rank}"
        self._outbox = folder / "out"

    def post(self, record: dict[str, Any]) -> None:
        """One line by one write."""
        line = json.dumps(record, allow_nan=False).encode() + b"\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(self._lines, flags, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)

    def offer(
        self, name: str, chunks: Iterable[bytes | memoryview], record: dict[str, Any]
    ) -> None:
        """Put a file there for the coordinator to fetch, and announce it with `record`."""
        self._outbox.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = self._outbox.parent / f".{name}.partial"
        digest = hashlib.sha256()
        size = 0
        with partial.open("wb") as file:
            for chunk in chunks:
                digest.update(chunk)
                size += file.write(chunk)
        partial.rename(self._outbox / name)
        self.post({**record, "name": name, "bytes": size, "sha256": digest.hexdigest()})

    def withdraw(self, name: str) -> None:
        """Remove what was offered."""
        (self._outbox / name).unlink(missing_ok=True)

    def has(self, number: int) -> bool:
        """Whether a feed is there to be taken."""
        return any(path.exists() for path in self._names(number))

    def take(
        self, number: int, timeout_s: float, meanwhile: Callable[[], None] = lambda: None
    ) -> Feed:
        """Wait for a feed and take it. Raises `ExchangeFailed`, and what `meanwhile` raises, which
        is called while nothing came.
        """
        deadline = time.monotonic() + timeout_s
        message, file = self._names(number)
        while True:
            if file.exists():
                return _unpacked(_taken(file))
            if message.exists():
                header = json.loads(_taken(message))
                if header["type"] == "over":
                    raise ExchangeFailed(f"the coordinator ended the exchange: {header['why']}")
                return Feed(header, memoryview(b""))
            meanwhile()
            if time.monotonic() > deadline:
                raise ExchangeFailed(
                    f"nothing from the coordinator for {timeout_s:g} s (--collective-timeout)"
                )
            time.sleep(POLL_S)

    def _names(self, number: int) -> tuple[Path, Path]:
        return self._inbox / f"{number:08d}.json", self._inbox / f"{number:08d}.bin"


def packed(header: dict[str, Any], content: Iterable[bytes | memoryview]) -> Iterable[Any]:
    """A header and the bytes after it, as `take` will tell them apart."""
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    yield MAGIC + struct.pack("<I", len(text)) + text
    yield from content


def _taken(path: Path) -> bytes:
    content = path.read_bytes()
    path.unlink()
    return content


def _unpacked(content: bytes) -> Feed:
    if content[:4] != MAGIC:
        raise ExchangeFailed("what the coordinator gave makes no sense")
    (size,) = struct.unpack_from("<I", content, 4)
    header = json.loads(content[8 : 8 + min(size, MAX_HEADER_BYTES)])
    return Feed(header, memoryview(content)[8 + size :])
