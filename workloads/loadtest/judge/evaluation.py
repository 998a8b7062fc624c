"""The verdict on each stage, from what all nodes left: pooled records, evidence, reasons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..base.arrivals import UNSTEADY
from ..base.records import RequestRecord
from ..base.stages import NodeLoad, Saturation, Stage
from .backlog import Backlog
from .definitions import Definition
from .rate_search import Trial, best_rate
from .summary import Objectives, Summary
from .validity import Bounds, LoadEvidence, invalid_reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What records are judged by."""

    definition: Definition
    objectives: Objectives
    bounds: Bounds
    good_share: float
    most_failed: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """A stage over all nodes. ``reasons``: why its figures are not those of the load that was
    configured; empty = they are. ``cut_short``: that of them which says that it was stopped, empty
    = it was not. ``timeline`` is for charts.
    """

    stage: int
    rate: float | None
    concurrency: int
    schedule_s: float
    wall: float
    whole: bool
    ceiling: float
    summary: Summary
    terms: Terms
    reasons: tuple[str, ...]
    timeline: Timeline
    saturation: Saturation | None = None
    cut_short: str = ""

    @property
    def valid(self) -> bool:
        return not self.reasons

    @property
    def measured(self) -> bool:
        """Whether latencies are the server's: the load was valid, as far as it came."""
        return all(reason == self.cut_short for reason in self.reasons)

    @property
    def met(self) -> bool:
        """Whether the load was valid, and so many requests as asked for met every objective."""
        return self.valid and self.summary.good_fraction >= self.terms.good_share

    @property
    def delivered_rate(self) -> float:
        return self.summary.delivered_rate

    @property
    def failure(self) -> str:
        """Why the run fails although the load was valid: too many requests did. Empty = it does
        not.
        """
        summary = self.summary
        if summary.failed <= self.terms.most_failed * summary.total:
            return ""
        allowed = f"more than the part of {self.terms.most_failed:.3g} that may (max_failed)"
        failed = f"{summary.failed} of {summary.total} requests failed, {allowed}"
        return f"{failed}: {summary.failures.cause}"


@dataclass(slots=True)
class Moment:
    """What happened in one second of a stage."""

    sent: int = 0
    completed: int = 0
    failed: int = 0
    ttft_s: float = 0.0
    latency_s: float = 0.0
    output_tokens: int = 0


# Longer stages are drawn in steps of more than a second.
MAX_MOMENTS = 600


@dataclass(slots=True)
class Timeline:
    """What happened when, over all nodes; each counts from its own start."""

    width_s: float = 1.0
    moments: dict[int, Moment] = field(default_factory=dict)

    def add(self, record: RequestRecord, definition: Definition) -> None:
        moment = self._at(record.scheduled_s)
        moment.sent += record.sent
        if not record.succeeded:
            moment.failed += 1
            return
        moment.completed += 1
        moment.ttft_s += definition.ttft(record)
        moment.latency_s += definition.latency(record)
        self._at(record.end_s).output_tokens += record.output_tokens

    def _at(self, time_s: float) -> Moment:
        return self.moments.setdefault(int(max(0.0, time_s) / self.width_s), Moment())


def evaluate(
    nodes: Sequence[tuple[NodeLoad, Iterable[RequestRecord]]], terms: Terms
) -> list[StageResult]:
    """One result for each stage that any node had, in their order. Each node's records are read
    once.
    """
    longest_s = max((s.schedule_s for load, _ in nodes for s in load.stages), default=0.0)
    width_s = max(1.0, longest_s / MAX_MOMENTS)
    stages = {stage.stage for load, _ in nodes for stage in load.stages}
    summaries = {at: Summary(terms.definition, terms.objectives) for at in stages}
    timelines = {at: Timeline(width_s) for at in stages}
    backlogs = _backlogs([load for load, _ in nodes])
    for load, records in nodes:
        for stage in load.stages:
            summaries[stage.stage].expect(load.node, stage.schedule_s)
        for record in records:
            if record.stage in stages:
                summaries[record.stage].add(load.node, record)
                timelines[record.stage].add(record, terms.definition)
            if record.stage in backlogs:
                backlogs[record.stage].add(record)
    loads = [load for load, _ in nodes]
    return [
        _result(loads, at, summaries[at], timelines[at], backlogs.get(at), terms)
        for at in sorted(stages)
    ]


def _backlogs(nodes: Sequence[NodeLoad]) -> dict[int, Backlog]:
    """For each stage that every node sent to its end at one rate."""
    lengths: dict[int, list[float]] = {}
    for load in nodes:
        for stage in load.stages:
            if stage.whole and stage.rate and load.settings.get("arrival") not in UNSTEADY:
                lengths.setdefault(stage.stage, []).append(stage.schedule_s)
    return {at: Backlog(max(found)) for at, found in lengths.items() if len(found) == len(nodes)}


def _result(  # noqa: PLR0917 - all that is known of one stage
    nodes: Sequence[NodeLoad],
    at: int,
    summary: Summary,
    timeline: Timeline,
    backlog: Backlog | None,
    terms: Terms,
) -> StageResult:
    parts = [(load, stage) for load in nodes for stage in load.stages if stage.stage == at]
    stages = [stage for _, stage in parts]
    seen = next((s.saturation for s in stages if s.saturation is not None), None)
    whole = len(parts) == len(nodes) and all(stage.whole for stage in stages)
    evidence = LoadEvidence(
        rate=_total([stage.rate for stage in stages]),
        ceiling=sum(load.ceiling for load, _ in parts),
        saturation=seen or (backlog.saturation if backlog is not None else None),
        backlog=backlog,
        whole=whole,
        cut_short="" if whole or seen is not None else _cut_short(stages),
        failure=next(_failures(parts, len(nodes)), ""),
    )
    return StageResult(
        stage=at,
        rate=evidence.rate,
        concurrency=sum(stage.concurrency for stage in stages),
        schedule_s=max(stage.schedule_s for stage in stages),
        wall=min(stage.wall for stage in stages),
        whole=evidence.whole,
        ceiling=evidence.ceiling,
        summary=summary,
        terms=terms,
        reasons=tuple(invalid_reasons(summary, evidence, terms.bounds)),
        timeline=timeline,
        saturation=evidence.saturation,
        cut_short=evidence.cut_short,
    )


def _cut_short(stages: Sequence[Stage]) -> str:
    """How far a load came that was stopped; empty = it was not."""
    stopped = [stage for stage in stages if not stage.whole and not stage.failure]
    if not stopped:
        return ""
    first = min(stopped, key=lambda stage: stage.schedule_s)
    if first.schedule_s >= first.configured_s:
        return "stopped before its last answers were there"
    return f"stopped after {first.schedule_s:.3g} s of {first.configured_s:.6g} s"


def cut_short(results: Sequence[StageResult]) -> str:
    """How far the whole load came if it was stopped; empty = it was not."""
    return next((each.cut_short for each in results if each.cut_short), "")


def _total(rates: Sequence[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known else None


def _failures(parts: Sequence[tuple[NodeLoad, Stage]], nodes: int) -> Iterator[str]:
    for load, stage in parts:
        if stage.failure:
            yield f"{load.node}: {stage.failure}"
    if len(parts) < nodes:
        yield f"only {len(parts)} of {nodes} nodes sent it"


def headline(results: Sequence[StageResult]) -> StageResult:
    """The stage whose figures are those of the run: of several, the one with the highest rate that
    meets the objectives, else the first. Raises ``IndexError`` for none.
    """
    rate = best_rate(trials(results))
    return next((each for each in results if rate is not None and each.rate == rate), results[0])


def trials(results: Sequence[StageResult]) -> list[Trial]:
    """What a search has found out so far."""
    return [Trial(rate=each.rate, met=each.met) for each in results if each.rate is not None]


def settings_difference(some: Mapping[str, object], others: Mapping[str, object]) -> str:
    """Which parameter differs between two nodes, so that they cannot be pooled; empty = none."""
    names = sorted(some.keys() | others.keys())
    return next((name for name in names if some.get(name) != others.get(name)), "")
