"""Which sequence has which slot of the cache, and what is computed next. Pure.

A slot is a row of the key-value cache and of every decode step. A decode step works on slots 0 to
the highest one in use, rounded up to a bucket, so the lowest free slot is always given first.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field

STOP = "stop"  # the model ended the answer
LENGTH = "length"  # it has max_tokens tokens
ROUND_TOKENS = 64  # lengths of cache and of padded prompts are multiples of it


class TooLong(ValueError):
    """A request that does not fit into a slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A prompt's tokens and what ends its answer. ``temperature`` 0 takes the likeliest token.

    An end-of-text token does not end an answer before ``min_tokens``: it is not chosen until then.
    With ``ignore_eos`` it is a token like any other.
    """

    tokens: tuple[int, ...]
    max_tokens: int
    min_tokens: int = 0
    temperature: float = 0.0
    ignore_eos: bool = False

    def check_length(self, context: int) -> None:
        """Raises :class:`TooLong`."""
        if len(self.tokens) + self.max_tokens > context:
            raise TooLong(
                f"{len(self.tokens)} prompt tokens and max_tokens {self.max_tokens} are more than "
                f"the context of {context}"
            )


@dataclass(slots=True, eq=False)
class Sequence:
    """A request under way: its slot, tokens that were asked of the device, and those that came."""

    request: Request
    number: int
    slot: int = -1
    launched: int = 0
    generated: list[int] = field(default_factory=list)
    finish: str = ""

    @property
    def due(self) -> bool:
        """Whether another token must be asked of the device."""
        return not self.finish and self.launched < self.request.max_tokens

    def take(self, token: int, ends: frozenset[int]) -> bool:
        """Add a token that came; whether it belongs to the answer."""
        if self.finish:
            return False
        self.generated.append(token)
        if token in ends and not self.request.ignore_eos:
            self.finish = STOP
        elif len(self.generated) == self.request.max_tokens:
            self.finish = LENGTH
        return True


class Slots:
    """Sequences that wait, first come, first served, and those that have a slot."""

    def __init__(self, count: int) -> None:
        self._free = list(range(count))
        self._waiting: deque[Sequence] = deque()
        self.running: dict[int, Sequence] = {}

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to compute."""
        return not self._waiting and not self.running

    def add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    def admit(self, budget: int) -> list[Sequence]:
        """The next sequences to prefill together, each with a slot: those whose prompts, padded to
        the longest one, have at most ``budget`` tokens; one at least, if a slot is free.
        """
        admitted: list[Sequence] = []
        longest = 0
        while self._waiting and self._free:
            longest = max(longest, rounded(len(self._waiting[0].request.tokens)))
            if admitted and longest * (len(admitted) + 1) > budget:
                break
            sequence = self._waiting.popleft()
            sequence.slot = heapq.heappop(self._free)
            self.running[sequence.slot] = sequence
            admitted.append(sequence)
        return admitted

    def due(self) -> list[Sequence]:
        """Those that a decode step gives a token."""
        return [sequence for sequence in self.running.values() if sequence.due]

    def release(self, finished: Iterable[Sequence]) -> None:
        """Free the slots of these; also of one that still waits."""
        for sequence in finished:
            if self.running.get(sequence.slot) is sequence:
                del self.running[sequence.slot]
                heapq.heappush(self._free, sequence.slot)

    def drop(self, sequence: Sequence) -> None:
        """Forget a sequence that nobody waits for any more."""
        sequence.finish = sequence.finish or LENGTH
        if sequence.slot < 0:
            self._waiting = deque(each for each in self._waiting if each is not sequence)
        self.release([sequence])


def rounded(tokens: int) -> int:
    """The next multiple of :data:`ROUND_TOKENS`."""
    return -(-tokens // ROUND_TOKENS) * ROUND_TOKENS


def row_buckets(slots: int) -> tuple[int, ...]:
    """Numbers of rows that a decode step is prepared for: powers of two, from 8 on also the half
    between two of them, and ``slots`` itself.
    """
    sizes = {slots}
    size = 1
    while size < slots:
        sizes |= {size, size + size // 2 if size >= 8 else size}
        size *= 2
    return tuple(sorted(each for each in sizes if each <= slots))


def bucket_of(needed: int, buckets: Items[int]) -> int:
    """The smallest bucket that holds as many. Raises ``IndexError`` if none does."""
    return buckets[bisect_left(buckets, needed)]
