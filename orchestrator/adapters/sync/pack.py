"""The contents that nodes lack, in parts that are read and compressed once for all of them.

A part holds pieces, each with a header (index of the content in the manifest, offset, length) as
``orchestrator.node_agent.code.snapshot`` reads it, so that 50,000 small files are a few dozen
requests and one large file is many parts. Contents that do not compress are in parts of their own,
of which neither side pays for the attempt.
"""

from __future__ import annotations

import asyncio
import os
import struct
import tempfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Self

PART_BYTES = 4 * 1024 * 1024
IN_MEMORY_BYTES = 48 * 1024 * 1024
# Parts under construction: two cores' worth, and the next one is ready when it is asked for.
AHEAD = 3
PIECE = struct.Struct(">IQI")
# Large contents are tried before they are compressed, at a few places: images, weights and archives
# gain nothing, and take the client longer than all of their way to eight hosts.
TRIED_FROM_BYTES = 64 * 1024
TRIED_BYTES = 1024
TRIED_PLACES = 4
WORTH = 0.9


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


@dataclass(frozen=True, slots=True)
class _Group:
    """What becomes one part."""

    pieces: list[_Piece]
    compressed: bool


@dataclass(frozen=True, slots=True)
class _Spooled:
    """Where a part is in the temporary file."""

    offset: int
    size: int
    compressed: bool


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

    Parts wait in memory up to 48 MiB, beyond that in a temporary file, so that a slow node does not
    hold up the others.
    """

    def __init__(
        self, blobs: Mapping[str, int], sources: Mapping[str, Path], missing: bytes
    ) -> None:
        self.closed = False
        self.contents = sum(byte.bit_count() for byte in missing)
        self._pieces = _list_pieces(blobs, sources, missing)
        self._plan: list[_Group] | None = None
        self._users = 0
        self._spool: IO[bytes] | None = None
        self._stored: list[PackPart | _Spooled] = []
        self._in_memory_bytes = 0
        self._ahead: deque[asyncio.Task[PackPart]] = deque()
        self._turn = asyncio.Lock()

    def __len__(self) -> int:
        """The number of parts."""
        assert self._plan is not None
        return len(self._plan)

    async def __aenter__(self) -> Self:
        self._users += 1
        try:
            async with self._turn:
                if self._plan is None:
                    self._plan = await asyncio.to_thread(_plan_groups, self._pieces)
        except BaseException:
            await self._leave()
            raise
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._leave()

    async def _leave(self) -> None:
        self._users -= 1
        if self._users == 0:
            self.closed = True
            for task in self._ahead:
                task.cancel()
            await asyncio.gather(*self._ahead, return_exceptions=True)
            self._stored.clear()
            if self._spool is not None:
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
            stored = self._stored[number]
            return self._load(stored) if isinstance(stored, _Spooled) else stored

    def _start(self) -> None:
        assert self._plan is not None
        begun = len(self._stored) + len(self._ahead)
        for group in self._plan[begun : begun + AHEAD - len(self._ahead)]:
            self._ahead.append(asyncio.create_task(asyncio.to_thread(_build_part, group)))

    def _store(self, part: PackPart) -> None:
        self._in_memory_bytes += len(part.data)
        if self._in_memory_bytes <= IN_MEMORY_BYTES:
            self._stored.append(part)
            return
        if self._spool is None:
            self._spool = tempfile.TemporaryFile()  # noqa: SIM115 - closed by who leaves last
        offset = self._spool.seek(0, os.SEEK_END)
        self._spool.write(part.data)
        self._stored.append(_Spooled(offset, len(part.data), part.compressed))

    def _load(self, stored: _Spooled) -> PackPart:
        assert self._spool is not None
        self._spool.seek(stored.offset)
        return PackPart(self._spool.read(stored.size), stored.compressed)


def _list_pieces(
    blobs: Mapping[str, int], sources: Mapping[str, Path], missing: bytes
) -> list[list[_Piece]]:
    """Of each content in the bitmap ``missing``, its pieces in order."""
    return [
        [
            _Piece(index, sources[digest], offset, min(PART_BYTES, size - offset))
            for offset in range(0, max(size, 1), PART_BYTES)
        ]
        for index, (digest, size) in enumerate(blobs.items())
        if missing[index // 8] >> index % 8 & 1
    ]


def _plan_groups(contents: Iterable[list[_Piece]]) -> list[_Group]:
    """All pieces of a content are of one kind, so that they arrive in order."""
    kinds: dict[bool, list[_Piece]] = {True: [], False: []}
    for pieces in contents:
        kinds[_is_worth_compressing(pieces)] += pieces
    return [
        _Group(group, compressed)
        for compressed, pieces in kinds.items()
        for group in _group_pieces(pieces)
    ]


def _is_worth_compressing(pieces: list[_Piece]) -> bool:
    """Small contents are; of large ones, a sample decides."""
    size = pieces[-1].offset + pieces[-1].length
    if size < TRIED_FROM_BYTES:
        return True
    places = range(0, size - TRIED_BYTES, max(1, (size - TRIED_BYTES) // TRIED_PLACES))
    sample = b"".join(_read_sample(pieces[0].source, places))
    return len(zlib.compress(sample, 1)) <= WORTH * len(sample)


def _read_sample(source: Path, places: Iterable[int]) -> Iterator[bytes]:
    """Nothing of a file that cannot be read: whoever reads all of it says so."""
    try:
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        for place in places:
            yield os.pread(fd, TRIED_BYTES, place)
    except OSError:
        return
    finally:
        os.close(fd)


def _group_pieces(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
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


def _build_part(group: _Group) -> PackPart:
    fields = []
    for piece in group.pieces:
        fields += [PIECE.pack(piece.index, piece.offset, piece.length), _read_piece(piece)]
    data = b"".join(fields)
    packed = zlib.compress(data, 1) if group.compressed else data
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
