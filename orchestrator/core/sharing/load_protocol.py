"""What ``load_machine`` takes in and gives out. An id is the load generator's own, a number ours:
samples are numbered from 0 in the order in which they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# ---- what happened ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WorkersSeen:
    """So many workers are ready, with what they reach together, and so many still start."""

    ready: int
    per_s: float
    starting: int


@dataclass(frozen=True, slots=True)
class Issued:
    """The generator asks for samples: (id, number in the data set) of each."""

    queries: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Flushed:
    """The generator asks for nothing more."""


@dataclass(frozen=True, slots=True)
class LoadEnded:
    """The generator has written its summary."""


@dataclass(frozen=True, slots=True)
class GeneratorGone:
    """The generator's process has ended."""

    reason: str


@dataclass(frozen=True, slots=True)
class SampleBegun:
    """The output of a sample has begun."""

    number: int


@dataclass(frozen=True, slots=True)
class Answered:
    """A sample is answered, with these amounts, or was given up (None)."""

    number: int
    amounts: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class Looked:
    """Nothing else happened until now."""


LoadEvent = (
    WorkersSeen | Issued | Flushed | LoadEnded | GeneratorGone | SampleBegun | Answered | Looked
)

# ---- what to do ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartTest:
    """Have the generator begin; ``per_s``: what the workers reach together, 0 = unknown."""

    per_s: float


@dataclass(frozen=True, slots=True)
class AddSamples:
    """So many more samples are to be done."""

    count: int


@dataclass(frozen=True, slots=True)
class EndSamples:
    """No more will come."""


@dataclass(frozen=True, slots=True)
class TellBegun:
    """Tell the generator that the output of this id has begun."""

    id: int


@dataclass(frozen=True, slots=True)
class TellAnswered:
    """Tell the generator that this id is answered; ``amounts`` None: with nothing."""

    id: int
    number: int
    amounts: Mapping[str, float] | None


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The test cannot come to its end."""

    reason: str


LoadAction = StartTest | AddSamples | EndSamples | TellBegun | TellAnswered | GiveUp
