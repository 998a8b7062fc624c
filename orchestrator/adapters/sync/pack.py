"""The contents that nodes lack, in parts that are read and compressed once for all of them.

A part holds pieces, each with a header (index of the content in the manifest, offset, length) as
``orchestrator.node_agent.code.snapshot`` reads it, so that 50,000 small files are a few dozen
requests and one large file is many parts.
"""

from __future__ import annotations

import asyncio
import os
import struct
import tempfile
import zlib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PART_BYTES = 4 * 1024 * 1024
SPOOL_MEMORY_BYTES = 16 * 1024 * 1024
# Parts under construction: two cores' worth, and the next one is ready when it is asked for.
AHEAD = 3
PIECE = struct.Struct(">IQI")


class ContentChanged(Exception):
    """The file at ``path`` is gone or shorter than it was."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.path = path


@dataclass(frozen=True, slots=True)
class PackPart:
    """The payload of one push."""

    data: bytes
    compressed: bool


@dataclass(frozen=True, slots=True)
class _Piece:
    index: int
    source: Path
    offset: int
    length: int


class Contents:
    """``blobs``: digests and sizes, in the order that gives them their index on the wire;
    ``sources``: a file here for each.
    """

    def __init__(self, blobs: Mapping[str, int], sources: Mapping[str, Path]) -> None:
        self.blobs = blobs
        self.sources = sources
        self._packs: dict[bytes, Pack] = {}

    def pack(self, missing: bytes) -> Pack:
        """The contents in the bitmap ``missing``, read and compressed once for all nodes."""
        pack = self._packs.get(missing)
        if pack is None or pack.closed:
            pack = self._packs[missing] = Pack(self.blobs, self.sources, missing)
        return pack


class Pack:
    """Use as an async context manager, once per node; who leaves last frees the space for good.

    Parts wait in memory up to 16 MiB, beyond that in a temporary file, so that a slow node does not
    hold up the others.
    """

    def __init__(
        self, blobs: Mapping[str, int], sources: Mapping[str, Path], missing: bytes
    ) -> None:
        self.closed = False
        self.contents = sum(byte.bit_count() for byte in missing)
        self._plan = list(_group_pieces(_list_pieces(blobs, sources, missing)))
        self._users = 0
        self._spool: tempfile.SpooledTemporaryFile[bytes]
        self._stored: list[tuple[int, int, bool]] = []
        self._ahead: deque[asyncio.Task[PackPart]] = deque()
        self._turn = asyncio.Lock()

    def __len__(self) -> int:
        """The number of parts."""
        return len(self._plan)

    async def __aenter__(self) -> Self:
        if not self._users:
            self._spool = tempfile.SpooledTemporaryFile(SPOOL_MEMORY_BYTES)  # noqa: SIM115
        self._users += 1
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._users -= 1
        if self._users == 0:
            self.closed = True
            for task in self._ahead:
                task.cancel()
            await asyncio.gather(*self._ahead, return_exceptions=True)
            self._spool.close()

    async def part(self, number: int) -> PackPart:
        """Parts may be asked for repeatedly and in any order. Raises :class:`ContentChanged`."""
        async with self._turn:
            while len(self._stored) <= number:
                self._start()
                part = await asyncio.shield(self._ahead[0])
                self._ahead.popleft()
                self._store(part)
                if len(self._stored) > number:
                    return part
            offset, size, compressed = self._stored[number]
            self._spool.seek(offset)
            return PackPart(self._spool.read(size), compressed)

    def _start(self) -> None:
        begun = len(self._stored) + len(self._ahead)
        for pieces in self._plan[begun : begun + AHEAD - len(self._ahead)]:
            self._ahead.append(asyncio.create_task(asyncio.to_thread(_build_part, pieces)))

    def _store(self, part: PackPart) -> None:
        offset = self._spool.seek(0, os.SEEK_END)
        self._spool.write(part.data)
        self._stored.append((offset, len(part.data), part.compressed))


def _list_pieces(
    blobs: Mapping[str, int], sources: Mapping[str, Path], missing: bytes
) -> Iterator[_Piece]:
    for index, (digest, size) in enumerate(blobs.items()):
        if missing[index // 8] >> index % 8 & 1:
            for offset in range(0, max(size, 1), PART_BYTES):
                yield _Piece(index, sources[digest], offset, min(PART_BYTES, size - offset))


def _group_pieces(pieces: Iterator[_Piece]) -> Iterator[list[_Piece]]:
    """Groups of at most ``PART_BYTES`` with their headers, or of a single piece."""
    group: list[_Piece] = []
    size = 0
    for piece in pieces:
        size += PIECE.size + piece.length
        if group and size > PART_BYTES:
            yield group
            group, size = [], PIECE.size + piece.length
        group.append(piece)
    if group:
        yield group


def _build_part(pieces: list[_Piece]) -> PackPart:
    fields = []
    for piece in pieces:
        fields += [PIECE.pack(piece.index, piece.offset, piece.length), _read_piece(piece)]
    data = b"".join(fields)
    packed = zlib.compress(data, 1)
    return PackPart(packed, True) if len(packed) < len(data) else PackPart(data, False)


def _read_piece(piece: _Piece) -> bytes:
    try:
        fd = os.open(piece.source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            data = os.pread(fd, piece.length, piece.offset)
        finally:
            os.close(fd)
    except OSError as error:
        raise ContentChanged(piece.source) from error
    if len(data) != piece.length:
        raise ContentChanged(piece.source)
    return data
