"""Remembers digests by what ``lstat`` says of files, so that an unchanged tree is not read again.

One file per tree that is synced, replaced as a whole. A file that was changed within the same tick
of its file system's clock in which it was read would keep its times: rows that were that young when
reading began are not remembered (git's index calls such entries racy).
"""

from __future__ import annotations

import json
import zlib
from array import array
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from orchestrator.adapters.store.atomic_files import make_private_dir, write_atomic
from orchestrator.adapters.sync.file_stats import CTIME, MTIME, WIDTH
from orchestrator.core.base.manifest import DIGEST_BYTES, digest_of, is_digest

VERSION = 1
MAX_BASES = 4
MAX_TREES = 64
MANIFEST, BEFORE = ".manifest", ".before"
# Times that are not whole microseconds come from a clock with ticks of at most 10 ms; others may
# be as coarse as FAT's two seconds.
FINE_TICK_NS = 50_000_000
COARSE_TICK_NS = 2_000_000_000

_UNKNOWN = array("q", [-1] * WIDTH)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeIndex:
    """``paths``, rows of ``stats`` and ``digests`` (binary, joined) go in step.

    ``snapshot`` is the digest of the whole; ``bases`` are those of earlier ones, newest first.
    """

    paths: tuple[str, ...] | list[str]
    stats: array[int]
    digests: bytes
    snapshot: str
    bases: tuple[str, ...] = ()

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """None if there is none, or one that is damaged or of another version."""
        try:
            with path.open("rb") as file:
                header = json.loads(file.readline(8192))
                body = file.read()
            if header["version"] != VERSION or header["crc32"] != zlib.crc32(body):
                return None
            return cls._parse(header, body)
        except (OSError, ValueError, KeyError, TypeError, IndexError):
            return None

    @classmethod
    def _parse(cls, header: dict[str, object], body: bytes) -> Self:
        count, length = header["count"], header["paths"]
        if not isinstance(count, int) or not isinstance(length, int):
            raise TypeError("not a number")
        stats = array("q")
        end = length + count * WIDTH * stats.itemsize
        stats.frombytes(body[length:end])
        snapshot, bases = header["snapshot"], header["bases"]
        if not isinstance(snapshot, str) or not isinstance(bases, list):
            raise TypeError("not the digests")
        return cls(
            paths=body[:length].decode().split("\0") if count else [],
            stats=stats,
            digests=body[end:],
            snapshot=snapshot,
            bases=tuple(base for base in bases if is_digest(base)),
        )

    def save(self, path: Path, *, began_ns: int) -> None:
        """Replace the index at ``path``; reading the files began at ``began_ns`` (wall clock)."""
        names = "\0".join(self.paths).encode()
        body = names + without_racy(self.stats, began_ns).tobytes() + self.digests
        header = {
            "version": VERSION,
            "crc32": zlib.crc32(body),
            "count": len(self.paths),
            "paths": len(names),
            "snapshot": self.snapshot,
            "bases": self.bases[:MAX_BASES],
        }
        make_private_dir(path.parent)
        # Checked when it is read: waiting for the disk would hold up the first connection.
        write_atomic(path, json.dumps(header).encode() + b"\n" + body, durable=False)
        _prune_indices(path.parent)

    def matches(self, paths: list[str], stats: array[int]) -> bool:
        """Whether nothing changed since."""
        return self.stats == stats and self.paths == paths

    def known(self) -> dict[tuple[str, bytes], bytes]:
        """(path, row) -> digest."""
        rows = self.stats.tobytes()
        width = WIDTH * self.stats.itemsize
        return {
            (path, rows[i * width : (i + 1) * width]): self.digests[
                i * DIGEST_BYTES : (i + 1) * DIGEST_BYTES
            ]
            for i, path in enumerate(self.paths)
        }


class KeptManifests:
    """The manifest of the snapshot that an index is of, and the one before: beside the index."""

    def __init__(self, index: Path) -> None:
        self._last = index.with_suffix(MANIFEST)
        self._before = index.with_suffix(BEFORE)
        self._seen: dict[str, bytes] = {}

    def manifest(self, digest: str) -> bytes:
        """The encoded manifest of that digest; empty if it is not kept."""
        if digest in self._seen:
            return self._seen[digest]
        for path in (self._last, self._before):
            with suppress(OSError):
                data = path.read_bytes()
                if digest_of(data) == digest:
                    self._seen[digest] = data
                    return data
        return b""

    def keep(self, manifest: bytes, digest: str) -> None:
        """``digest``: of the ``manifest``. Raises ``OSError``."""
        self._seen[digest] = manifest
        with suppress(FileNotFoundError):
            if manifest == self._last.read_bytes():
                return
            self._last.replace(self._before)
        write_atomic(self._last, manifest, durable=False)


def without_racy(stats: array[int], began_ns: int) -> array[int]:
    """``stats`` with the rows of files blanked that changed just before reading began."""
    kept = array("q", stats)
    young_ns = began_ns - COARSE_TICK_NS
    times = zip(stats[MTIME::WIDTH], stats[CTIME::WIDTH], strict=True)
    for row in [i for i, (m, c) in enumerate(times) if m >= young_ns or c >= young_ns]:
        start = row * WIDTH
        changed_ns = max(stats[start + MTIME], stats[start + CTIME])
        fine = stats[start + CTIME] % 1000 != 0
        if changed_ns >= began_ns - (FINE_TICK_NS if fine else COARSE_TICK_NS):
            kept[start : start + WIDTH] = _UNKNOWN
    return kept


def _prune_indices(folder: Path) -> None:
    """Keep the indices that were written last."""
    indices = sorted(folder.glob("*.index"), key=_written_ns, reverse=True)
    for path in indices[MAX_TREES:]:
        for kept in (path, path.with_suffix(MANIFEST), path.with_suffix(BEFORE)):
            kept.unlink(missing_ok=True)


def _written_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
