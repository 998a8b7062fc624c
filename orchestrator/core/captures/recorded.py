"""What one node recorded of its GPUs, as its files say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from orchestrator.core.base.bounds import Count, Items, Text
from orchestrator.core.captures.nvlink import Collectives
from orchestrator.core.captures.points import Points
from orchestrator.core.captures.profile import RankProfile
from orchestrator.core.model.captures import CaptureKind
from orchestrator.core.model.facts import Gpu

NO_MARKS = "the script marks no steps (orchestrate_kit.mark_step or progress)"
NOT_HOME = "its outputs did not come home"
Row = tuple[float | None, ...]
Key = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedState:
    """``missing``: why there is nothing; ``trouble``: what cut it short."""

    rows: Count = 0
    missing: Text = ""
    trouble: Text = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedIndex:
    """``began``: seconds since the epoch by the node's clock. ``seconds`` None: the sampler did not
    come to its end. ``busy``: the part of the time that it asked the driver.
    """

    captures: Annotated[Mapping[Text, RecordedState], Items(16)]
    gpus: Annotated[tuple[Gpu, ...], Items(256)]
    began: float
    seconds: float | None = None
    samples: Count = 0
    busy: float | None = None


@dataclass(frozen=True, slots=True)
class CapturedSamples:
    """The rows of one CSV file by what tells them apart, ``(gpu,)`` or ``(gpu, link)``: time in
    seconds since the sampler began, then a value for each of ``columns``.
    """

    columns: Sequence[str]
    rows: Mapping[Key, Sequence[tuple[float, Row]]]

    def points(self, key: Key, column: str, scale: float = 1.0) -> Points:
        """One column over time, times ``scale``; what was not known is left out."""
        place = self.columns.index(column)
        found = ((t, row[place]) for t, row in self.rows.get(key, ()))
        return [(t, value * scale) for t, value in found if value is not None]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord:
    """One node's captures. ``problem``: why its files cannot be used as a whole, or one by one.
    ``collectives``: what one of its ranks says that it took part in; ``profiles``: of its ranks.
    """

    node: str
    index: RecordedIndex | None
    samples: Mapping[str, CapturedSamples] = field(default_factory=dict)
    problem: str = ""
    problems: Mapping[str, str] = field(default_factory=dict)
    collectives: Sequence[Collectives] = ()
    profiles: Sequence[RankProfile] = ()

    def missing(self, kind: str) -> str:
        """Why there is nothing of ``kind``; empty where there is something."""
        if self.problem:
            return self.problem
        if kind == CaptureKind.PROFILE:
            return self._missing_profile()
        if self.index is None:
            return self.problems.get(kind, NOT_HOME)
        state = self.index.captures.get(kind, RecordedState(missing="it was not sampled"))
        nothing = "" if kind in self.samples else "no sample was taken"
        return state.missing or self.problems.get(kind, nothing)

    def _missing_profile(self) -> str:
        if any(profile.events for profile in self.profiles):
            return ""
        reasons = [profile.reason for profile in self.profiles if profile.reason]
        empty = "nothing ran while it was profiled" if self.profiles else NO_MARKS
        return next(iter(reasons), self.problems.get(CaptureKind.PROFILE, empty))

    def trouble(self, kind: str) -> str:
        """What cut ``kind`` short; empty where nothing did."""
        if self.index is None or kind not in self.index.captures:
            return ""
        unfinished = "the sampler was ended early" if self.index.seconds is None else ""
        return self.index.captures[kind].trouble or unfinished

    def gpu(self, index: int) -> Gpu:
        """What is known of a GPU; its number alone where the driver said nothing."""
        known = self.index.gpus if self.index else ()
        return next((gpu for gpu in known if gpu.index == index), Gpu(index=index, name=""))
