"""The ledger of divisible work: every sample's first output by digest, each exactly once. Pure.

Arrays rather than objects: a million samples take some 50 MB, and an answer costs the same however
many there are.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from enum import StrEnum

DIGEST_BYTES = 32
_DONE, _FAILED, _DUPLICATE, _CONFLICT = 1, 2, 4, 8


class Acceptance(StrEnum):
    """What an output is to the ledger: the first one, the same again, or another one."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class OutputLocation:
    """Where an output was written down: numbers that mean something to whoever reads it."""

    source: int
    offset: int
    size: int


class Ledger:
    """Samples 0 to ``total`` - 1 in consecutive groups of ``group``.

    ``done`` have exactly one accepted output, ``failed`` were given up; ``duplicates`` were
    answered more than once, ``conflicts`` with different outputs: the first stays, and no merge
    takes place.
    """

    def __init__(self, total: int, group: int) -> None:
        self.group = group
        self.total = self.groups = 0
        self.done = self.failed = self.duplicates = self.conflicts = 0
        self._marks, self._digests = bytearray(), bytearray()
        self._sources, self._offsets, self._sizes = array("I"), array("Q"), array("I")
        self._seconds = array("f")
        self._left = array("I")
        self.extend(total)

    def extend(self, count: int) -> int:
        """Add ``count`` samples as groups of their own; how many groups.

        Raises ``ValueError`` if the last group is not full: it would change.
        """
        if self.total % self.group:
            raise ValueError(f"{self.total} samples are not a multiple of {self.group}")
        self.total += count
        self._marks.extend(bytes(count))
        self._digests.extend(bytes(DIGEST_BYTES * count))
        for numbers in (self._sources, self._offsets, self._sizes, self._seconds):
            numbers.frombytes(bytes(numbers.itemsize * count))
        before, self.groups = self.groups, -(-self.total // self.group)
        self._left.extend(array("I", [self.group]) * (self.groups - before))
        if self.total % self.group:
            self._left[-1] = self.total % self.group
        return self.groups - before

    @property
    def complete(self) -> bool:
        """Every sample has its one output."""
        return self.done == self.total and not self.conflicts

    @property
    def settled(self) -> bool:
        """Nothing is left to be done: every sample has an output or was given up."""
        return self.done + self.failed == self.total

    def group_of(self, index: int) -> int:
        return index // self.group

    def samples_of(self, group: int) -> range:
        first = group * self.group
        return range(first, min(first + self.group, self.total))

    def is_settled(self, group: int) -> bool:
        return not self._left[group]

    def accept(
        self, index: int, digest: bytes, place: OutputLocation, seconds: float
    ) -> Acceptance:
        """An output of sample ``index``; one of a sample that was given up counts after all."""
        marks = self._marks[index]
        if marks & _DONE:
            return self._repeat(index, digest)
        if marks & _FAILED:
            self.failed -= 1
        else:
            self._left[self.group_of(index)] -= 1
        self.done += 1
        self._marks[index] = marks & ~_FAILED | _DONE
        self._digests[DIGEST_BYTES * index : DIGEST_BYTES * (index + 1)] = digest
        self._sources[index], self._offsets[index] = place.source, place.offset
        self._sizes[index], self._seconds[index] = place.size, seconds
        return Acceptance.ACCEPTED

    def _repeat(self, index: int, digest: bytes) -> Acceptance:
        marks = self._marks[index]
        same = self.digest(index) == digest
        self.duplicates += not marks & _DUPLICATE
        self.conflicts += not same and not marks & _CONFLICT
        self._marks[index] = marks | _DUPLICATE | (0 if same else _CONFLICT)
        return Acceptance.DUPLICATE if same else Acceptance.CONFLICT

    def fail_groups(self, index: int) -> bool:
        """Nobody can do sample ``index``; False if that, or its output, is known already."""
        if self._marks[index] & (_DONE | _FAILED):
            return False
        self._marks[index] |= _FAILED
        self._left[self.group_of(index)] -= 1
        self.failed += 1
        return True

    def digest(self, index: int) -> bytes:
        return bytes(self._digests[DIGEST_BYTES * index : DIGEST_BYTES * (index + 1)])

    def place(self, index: int) -> OutputLocation | None:
        """Where the accepted output is; None if there is none."""
        if not self._marks[index] & _DONE:
            return None
        return OutputLocation(self._sources[index], self._offsets[index], self._sizes[index])

    def latencies(self) -> list[float]:
        """Seconds of every accepted output, sorted."""
        marks = self._marks
        return sorted(s for s, mark in zip(self._seconds, marks, strict=True) if mark & _DONE)
