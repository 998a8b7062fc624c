"""A load generator beside the workers, decided: when its test starts, which of its queries is which
sample of the work, and what it is told of each. No clock, no I/O.

Whatever the workers do, the generator is told of every id at most once that its output has begun,
then at most once that it is answered, and of nothing that it did not ask for: LoadGen does not
refuse a second answer, it counts it.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping

from orchestrator.core.sharing.load_protocol import (
    AddSamples,
    Answered,
    EndSamples,
    Flushed,
    GeneratorGone,
    GiveUp,
    Issued,
    LoadAction,
    LoadEnded,
    LoadEvent,
    Looked,
    SampleBegun,
    StartTest,
    TellAnswered,
    TellBegun,
    WorkersSeen,
)

# Once a worker is ready, others are waited for this long, or for so many times what it took itself.
READY_S, READY_TIMES = 60.0, 3.0
# All is answered, and yet the generator neither asks nor ends.
SILENCE_S = 120.0
_BEGUN, _ANSWERED = 1, 2


class LoadMachine:
    """One test. ``group``: samples that a worker gets together; each query holds a multiple of it,
    but the last. ``silence_s``: so long the generator may wait before it asks again.
    """

    def __init__(self, group: int, now: float, silence_s: float = SILENCE_S) -> None:
        self.started = self.ended = self.closed = False
        self._group = group
        self._silence_s = silence_s
        self._ids = array("Q")
        self._indices = array("Q")
        self._marks = bytearray()
        self._open = 0
        self._given_up = False
        self._began = self._last = now
        self._first_ready: float | None = None
        self._now = now

    def step(self, event: LoadEvent, now: float) -> tuple[LoadAction, ...]:
        """Take in ``event``; what to do, in this order. ``now`` is any monotonic clock."""
        self._now = now
        if self._given_up:
            return ()
        match event:
            case WorkersSeen():
                return tuple(self._see_workers(event))
            case Issued(queries=queries):
                return tuple(self._issue(queries))
            case Flushed():
                self._last = now
                return tuple(self._close())
            case LoadEnded():
                self.ended = True
                return tuple(self._close())
            case GeneratorGone(reason=reason):
                return () if self.ended else self._give_up(reason)
            case SampleBegun(number=number):
                return tuple(self._begin(number))
            case Answered(number=number, amounts=amounts):
                return tuple(self._answer(number, amounts))
            case Looked():
                return tuple(self._look())

    @property
    def complete(self) -> bool:
        """The generator asked for all that it will, and heard of all: its verdict is due."""
        return self.closed and not self._open

    def indices(self, first: int, count: int) -> list[int]:
        """Which samples of the data set the numbers from ``first`` on ask for."""
        return list(self._indices[first : first + count])

    def _see_workers(self, seen: WorkersSeen) -> Iterator[LoadAction]:
        """All that can be ready are, or have had their time: what loads later would be measured."""
        if self.started or not seen.ready:
            return
        if self._first_ready is None:
            self._first_ready = self._now
        patience = max(READY_S, READY_TIMES * (self._first_ready - self._began))
        if not seen.starting or self._now - self._first_ready >= patience:
            self.started = True
            self._last = self._now
            yield StartTest(seen.per_s)

    def _issue(self, queries: tuple[tuple[int, int], ...]) -> Iterator[LoadAction]:
        self._last = self._now
        if self.closed or len(self._ids) % self._group:
            yield from self._give_up(f"it asked for {len(queries)} samples out of turn")
            return
        self._ids.extend(id for id, _ in queries)
        self._indices.extend(index for _, index in queries)
        self._marks.extend(bytes(len(queries)))
        self._open += len(queries)
        yield AddSamples(len(queries))

    def _close(self) -> Iterator[LoadAction]:
        if not self.closed:
            self.closed = True
            yield EndSamples()

    def _begin(self, number: int) -> Iterator[LoadAction]:
        if number < len(self._marks) and not self._marks[number]:
            self._marks[number] = _BEGUN
            yield TellBegun(self._ids[number])

    def _answer(self, number: int, amounts: Mapping[str, float] | None) -> Iterator[LoadAction]:
        if number >= len(self._marks) or self._marks[number] & _ANSWERED:
            return
        yield from self._begin(number)
        self._marks[number] |= _ANSWERED
        self._open -= 1
        self._last = self._now
        yield TellAnswered(self._ids[number], number, amounts)

    def _look(self) -> Iterator[LoadAction]:
        waits = self.started and not self.ended and not self._open
        if waits and self._now - self._last > self._silence_s:
            yield from self._give_up(
                f"every sample is answered, but it has neither asked for more nor ended for "
                f"{self._silence_s:g} s"
            )

    def _give_up(self, reason: str) -> tuple[LoadAction, ...]:
        self._given_up = True
        return (GiveUp(reason),)
