"""One run as the page shows it: from its state while it runs, then from its result. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.adapters.report.drawing.charts import Chart
from orchestrator.adapters.store.latest_progress import RankProgress
from orchestrator.adapters.store.run_list import RunSummary
from orchestrator.adapters.web.runs.rank_states import (
    MAX_RANKS,
    RankState,
    count_states,
    rank_states,
)
from orchestrator.core.base.figures import format_number
from orchestrator.core.base.nodeset import fold_nodeset
from orchestrator.core.base.outcome import describe_outcome
from orchestrator.core.model.plan import NodePlan
from orchestrator.core.run.events import Phase, RankExited
from orchestrator.core.run.machine import current_phase
from orchestrator.core.run.node_state import NodeState, node_stage
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.failure_cause import ending_name, failure_of
from orchestrator.core.verdict.node_status import rungs_of
from orchestrator.core.verdict.result import FailureResult, Result, RungResult

MAX_NODES = 200
MAX_ENDINGS = 50
TONES = {
    "succeeded": "good",
    "degraded": "odd",
    "stopped": "odd",
    "unattended": "odd",
    "failed": "bad",
    "unreadable": "bad",
}
_NODE_TONES = {"failed": "bad", "lost": "bad", "dirty": "bad", "excluded": "odd", "stopped": "odd"}


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLine:
    """One node of the run. ``gpus``: those that the run holds there, and what they are."""

    name: str
    state: str
    ranks: str = ""
    progress: str = ""
    gpus: str = ""
    reason: str = ""

    @property
    def tone(self) -> str:
        """How well that is."""
        return _NODE_TONES.get(self.state, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class RankEnding:
    """A rank, or another process of the plan, that failed."""

    node: str
    name: str
    outcome: str
    last_line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPageView:
    """``seconds``: in each phase that it left; ``began`` and ``last_event``: when its first and its
    latest event or report were, in seconds since the epoch. ``trouble``: what could not be read.
    """

    summary: RunSummary
    state: RunState | None = None
    result: Result | None = None
    charts: tuple[Chart, ...] = ()
    last_step: int | None = None
    progress: tuple[RankProgress, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    began: float = 0.0
    last_event: float = 0.0
    trouble: str = ""

    @property
    def over(self) -> bool:
        """Whether there is a result."""
        return self.result is not None

    @property
    def tone(self) -> str:
        return TONES.get(self.summary.state, "")

    @property
    def phases(self) -> tuple[tuple[str, float], ...]:
        """Those that it was in, in order, with their seconds."""
        taken = self.result.timings if self.result is not None else self._so_far()
        return tuple((phase.value, taken[phase.value]) for phase in Phase if phase.value in taken)

    def _so_far(self) -> Mapping[str, float]:
        """With the present phase, until the latest event."""
        here = self.last_event - self.began - sum(self.seconds.values())
        before = self.seconds.get(self.phase, 0.0)
        return {**self.seconds, self.phase: before + max(0.0, here)}

    @property
    def phase(self) -> str:
        """The one that it is in; empty once it is over."""
        return "" if self.over or self.state is None else current_phase(self.state).value

    @property
    def attempt(self) -> int:
        return self.state.attempt if self.state is not None else 1

    @property
    def failure(self) -> FailureResult | None:
        """The first cause, as soon as it is known."""
        if self.result is not None:
            return self.result.failure
        if self.state is None or not self.state.halted:
            return None
        found = failure_of(self.state)
        return found[0] if found is not None else None

    @property
    def ladder(self) -> tuple[RungResult, ...]:
        """How the ranks communicate: what failed, what is used."""
        if self.result is not None:
            return self.result.ladder
        return tuple(rungs_of(self.state)) if self.state is not None else ()

    @property
    def samples(self) -> tuple[int, int] | None:
        """(settled, total) of divisible work."""
        divided = self.state.divided if self.state is not None else None
        return (divided.settled, divided.total) if divided is not None else None

    @property
    def ranks(self) -> tuple[RankState, ...]:
        """The first ``MAX_RANKS`` of the present attempt."""
        return rank_states(self.state)[:MAX_RANKS]

    @property
    def rank_counts(self) -> str:
        """How many of them are in which state."""
        return count_states(rank_states(self.state))

    @property
    def slowest(self) -> RankProgress | None:
        """The rank that is furthest behind: that is how far the whole is."""
        return min(self.progress, key=lambda rank: rank.ratio, default=None)

    @property
    def nodes(self) -> tuple[NodeLine, ...]:
        """Those that are not well first; at most ``MAX_NODES``."""
        lines = list(_ended(self.result) if self.result is not None else _running(self.state))
        gpus, progress = dict(_gpus(self.state)), dict(_progress(self.progress))
        shown = sorted(lines, key=lambda line: not line.tone)[:MAX_NODES]
        return tuple(
            replace(line, gpus=gpus.get(line.name, ""), progress=progress.get(line.name, ""))
            for line in shown
        )

    @property
    def hidden_nodes(self) -> int:
        """How many more there are."""
        known = self.result.nodes if self.result is not None else self._state_nodes
        return max(0, len(known) - MAX_NODES)

    @property
    def endings(self) -> tuple[RankEnding, ...]:
        """Ranks that failed by themselves, the first one first."""
        failures = self.state.failures[:MAX_ENDINGS] if self.state is not None else ()
        return tuple(
            RankEnding(
                node=ending.node,
                name=ending_name(ending),
                outcome=describe_outcome(ending.outcome),
                last_line=ending.last_line,
            )
            for ending in failures
        )

    @property
    def _state_nodes(self) -> Mapping[str, NodeState]:
        return self.state.nodes if self.state is not None else {}


def _ended(result: Result) -> Iterator[NodeLine]:
    for node in result.nodes:
        ranks = str(node.ranks) if node.ranks else ""
        yield NodeLine(name=node.name, state=node.state, ranks=ranks, reason=node.reason)


def _running(state: RunState | None) -> Iterator[NodeLine]:
    if state is None:
        return
    excluded = {each.node: each.reason for each in state.plan.excluded} if state.plan else {}
    ended: dict[str, int] = {}
    for ending in state.endings:
        ended[ending.node] = ended.get(ending.node, 0) + isinstance(ending, RankExited)
    shares = _shares(state)
    for name, node in state.nodes.items():
        problem = node.lost or node.problem
        share = shares.get(name)
        up = max(0, len(node.ranks) - ended.get(name, 0))
        yield NodeLine(
            name=name,
            state="excluded" if name in excluded else node_stage(node),
            ranks=f"{up} of {len(share.ranks)} running" if share is not None else "",
            reason=excluded.get(name) or (problem.message if problem else ""),
        )


def _progress(ranks: Sequence[RankProgress]) -> Iterator[tuple[str, str]]:
    """(node, how far the rank of it is that is furthest behind)"""
    slowest: dict[str, RankProgress] = {}
    for rank in ranks:
        known = slowest.get(rank.node)
        if known is None or rank.ratio < known.ratio:
            slowest[rank.node] = rank
    for node, rank in slowest.items():
        yield node, f"{format_number(rank.done)} of {format_number(rank.total)} {rank.unit}"


def _gpus(state: RunState | None) -> Iterator[tuple[str, str]]:
    """(node, the GPUs that the plan gives the run there)"""
    for name, share in _shares(state).items():
        facts = state.nodes[name].facts if state is not None else None
        if share.gpus:
            kinds = {gpu.name for gpu in facts.gpus if gpu.index in share.gpus} if facts else set()
            yield name, " ".join([fold_indices(share.gpus), *sorted(kinds)])


def _shares(state: RunState | None) -> Mapping[str, NodePlan]:
    return {s.name: s for s in state.plan.nodes} if state is not None and state.plan else {}


def fold_indices(indices: tuple[int, ...]) -> str:
    """``0-3,6``"""
    folded = fold_nodeset(f"g{index}" for index in indices)
    return folded.removeprefix("g").strip("[]")
