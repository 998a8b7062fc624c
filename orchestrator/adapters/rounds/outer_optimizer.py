"""The outer optimiser: what the nodes learned in a round, added up, and a Nesterov step with it.

    sum      <- weight x part, of each node
    momentum <- m x momentum + sum
    update   <- -rate x (sum + m x momentum), and what the last update lost by rounding

The state lives in files, worked on in chunks by a few threads, so that memory is bounded however
large the adapter is. A round takes effect with the one rename of ``state.json``:

    work/rounds/state.json                   the last round that was closed
    work/rounds/momentum-<round>.f32, residual-<round>.f32
    work/rounds/update-<round>.bin           what nodes are given: a header, then the values
    work/rounds/part-<round>-<n>.bin         what nodes have given; of round 0, samples of gradients
    work/rounds/choice.json                  what an attempt exchanges, where that was measured
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from orchestrator.adapters.rounds.parameter_files import (
    BLOCK,
    Bytes,
    Floats,
    Vector,
    is_acceptable,
    size_of,
)
from orchestrator.adapters.store.atomic_files import make_private_dir, write_json
from orchestrator.core.sharing.exchange_choice import ExchangeChoice
from orchestrator.core.sharing.round_protocol import Kept
from orchestrator.core.sharing.rounds import Exchanged

# Small enough for a processor's cache: the arithmetic is many passes over one chunk.
CHUNK = 512 * BLOCK
THREADS = min(4, os.cpu_count() or 1)
MAGIC = b"ORU1"
ALIGNMENT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Contribution:
    """A node's part and what it is multiplied by."""

    file: Path
    weight: float


class OuterState:
    """The files of one run. All methods block: call them in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self) -> Kept | None:
        """What was kept, if anything was and it makes sense."""
        try:
            told = json.loads((self._folder / "state.json").read_bytes())
            shares = {int(number): tuple(given) for number, given in told.pop("shares").items()}
            participants = tuple(told.pop("participants"))
            return Kept(**told, participants=participants, shares=shares)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def begin(self, kept: Kept) -> None:
        """Remember where an attempt begins. The momentum of an earlier attempt counts if it goes on
        exactly where that one stood.
        """
        make_private_dir(self._folder)
        before = self.load()
        same = before is not None and (before.step, before.values) == (kept.step, kept.values)
        keep = before.round if same and before is not None else None
        for name in ("momentum", "residual"):
            for path in self._folder.glob(f"{name}-*.f32"):
                if keep is not None and path == self._state(name, keep):
                    path.rename(self._state(name, kept.round))
                else:
                    path.unlink()
        for path in self._folder.glob("*.bin"):
            path.unlink()
        self._commit(kept)

    def prepare(self) -> None:
        """Make the folder, for what is kept before an attempt begins."""
        make_private_dir(self._folder)

    def load_choice(self, attempt: int) -> ExchangeChoice | None:
        """What an attempt was to exchange, if that was chosen already and makes sense."""
        try:
            told = json.loads((self._folder / "choice.json").read_bytes())
            if told.pop("attempt") != attempt:
                return None
            return ExchangeChoice(**{**told, "exchanged": Exchanged(told["exchanged"])})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def save_choice(self, attempt: int, choice: ExchangeChoice) -> None:
        write_json(self._folder / "choice.json", {"attempt": attempt, **asdict(choice)})

    def part(self, number: int, node: int) -> Path:
        """Where a node's part of a round is kept until the round is closed."""
        return self._folder / f"part-{number}-{node}.bin"

    @property
    def parameters(self) -> Path:
        """Where the parameters are kept that some nodes lack at the start."""
        return self._folder / "parameters.bin"

    def update(self, number: int) -> Path:
        return self._folder / f"update-{number}.bin"

    def updates(self) -> list[int]:
        """The rounds whose updates are still here."""
        names = (path.stem.partition("-")[2] for path in self._folder.glob("update-*.bin"))
        return sorted(int(name) for name in names if name.isdigit())

    def check(self, file: Path, compression: str, values: int) -> None:
        """Raises ``ValueError`` for a part that is not what it must be."""
        _require_size(file, size_of(compression, values))
        vector = Vector(_map_file(file), compression, values)

        def one(start: int, end: int) -> None:
            if not vector.is_acceptable(start, end):
                raise ValueError("it holds numbers that are not finite, or far too large")

        _in_chunks(values, one)

    def close(
        self,
        kept: Kept,
        contributions: Sequence[Contribution],
        header: Mapping[str, Any],
        *,
        compression: str,
        rate: float,
        momentum: float,
    ) -> None:
        """Add up the contributions to round ``kept.round`` and take the outer step.

        Raises ``ValueError`` when the result is not finite, ``OSError``.
        """
        values, number = kept.values, kept.round
        parts = [
            (Vector(_map_file(c.file), compression, values), np.float32(c.weight))
            for c in contributions
        ]
        content, target = _update_file(self.update(number), header, size_of(compression, values))
        update = Vector(content, compression, values)
        speed = self._renewed("momentum", number, values) if momentum else None
        lossy = compression != "none"
        residual = self._renewed("residual", number, values) if lossy else None
        outer_rate, decay = np.float32(-rate), np.float32(momentum)

        def one(start: int, end: int) -> None:
            wanted = np.zeros(end - start, dtype=np.float32)
            for vector, weight in parts:
                wanted += vector.weighted(start, end, weight)
            if speed is not None:
                now = speed.read(start, end) * decay + wanted
                speed.new[start:end] = now
                wanted += now * decay
            wanted *= outer_rate
            if residual is not None:
                wanted += residual.read(start, end)
            if not is_acceptable(wanted):
                raise ValueError("the update is not finite: lower the learning rates")
            written = update.write(start, wanted)
            if residual is not None:
                np.subtract(wanted, written, out=residual.new[start:end])

        _in_chunks(values, one)
        target.rename(self.update(number))
        states = [state for state in (speed, residual) if state is not None]
        for state in states:
            state.keep()
        self._commit(kept)
        for state in states:
            state.forget()
        for path in self._folder.glob(f"part-{number}-*.bin"):
            path.unlink()

    def forget_updates(self, rounds: Sequence[int]) -> None:
        """Those that every node has been given."""
        for number in rounds:
            self.update(number).unlink(missing_ok=True)

    def _commit(self, kept: Kept) -> None:
        shares = {str(number): list(given) for number, given in kept.shares.items()}
        told = {**asdict(kept), "shares": shares, "participants": list(kept.participants)}
        write_json(self._folder / "state.json", told)

    def _state(self, name: str, number: int) -> Path:
        return self._folder / f"{name}-{number}.f32"

    def _renewed(self, name: str, number: int, values: int) -> _Renewed:
        return _Renewed(self._state(name, number - 1), self._state(name, number), values)


class _Renewed:
    """A vector of the outer state: as the last round left it (zero at first), and the new one."""

    def __init__(self, before: Path, after: Path, values: int) -> None:
        self._before, self._after = before, after
        self._writing = after.with_suffix(".partial")
        whole = before.is_file() and before.stat().st_size == 4 * values
        self._old: Floats | None = _map_file(before).view(np.float32) if whole else None
        self.new: Floats = _create_file(self._writing, 4 * values).view(np.float32)

    def read(self, start: int, end: int) -> Floats:
        if self._old is None:
            return np.zeros(end - start, dtype=np.float32)
        return self._old[start:end]

    def keep(self) -> None:
        self._writing.rename(self._after)

    def forget(self) -> None:
        self._before.unlink(missing_ok=True)


def read_header(content: bytes) -> tuple[dict[str, Any], int]:
    """The header of an update and where its values begin. Raises ``ValueError``."""
    if content[:4] != MAGIC:
        raise ValueError("not an update")
    (size,) = struct.unpack_from("<I", content, 4)
    header: dict[str, Any] = json.loads(content[8 : 8 + size])
    return header, 8 + size


def _update_file(path: Path, header: Mapping[str, Any], size: int) -> tuple[Bytes, Path]:
    """A new file with the header in it; the bytes after that, and the file's name for now."""
    text = json.dumps(header, allow_nan=False).encode()
    text += b" " * (-(8 + len(text)) % ALIGNMENT)
    begin = MAGIC + struct.pack("<I", len(text)) + text
    partial = path.with_suffix(".partial")
    content = _create_file(partial, len(begin) + size)
    content[: len(begin)] = np.frombuffer(begin, dtype=np.uint8)
    return content[len(begin) :], partial


def _map_file(path: Path) -> Bytes:
    return np.memmap(path, dtype=np.uint8, mode="r")


def _create_file(path: Path, size: int) -> Bytes:
    return np.memmap(path, dtype=np.uint8, mode="w+", shape=(size,))


def _require_size(file: Path, size: int) -> None:
    found = file.stat().st_size
    if found != size:
        raise ValueError(f"it has {found} bytes instead of {size}")


def _in_chunks(count: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(start, end)`` for all of ``count`` values; the first error is raised."""
    with ThreadPoolExecutor(THREADS) as pool:
        ends = [(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]
        for done in [pool.submit(work, *bounds) for bounds in ends]:
            done.result()
