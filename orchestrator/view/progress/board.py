"""The state of the display, as a sum of events: per node its stage, ranks, progress and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.core.base.figures import format_number
from orchestrator.core.model.plan import NodePlan
from orchestrator.core.run import machine
from orchestrator.core.run.events import Divided, Event, Phase, ProcessExited, RankExited
from orchestrator.core.run.kit_reports import Progressed, Reported
from orchestrator.core.run.node_state import NodeState, node_stage
from orchestrator.core.run.state import RunState
from orchestrator.view.terminal.text import brief_text

MAX_FIELDS = 3
_RATE_MEMORY = 0.7


@dataclass(slots=True)
class Progress:
    """The latest progress of one rank, and how many units it made in how many seconds lately."""

    done: float
    total: float
    unit: str
    at: float
    fields: Mapping[str, float | str] = field(default_factory=dict)
    units: float = 0.0
    seconds: float = 0.0

    @property
    def rate(self) -> float | None:
        """Units per second; None until two reports."""
        return self.units / self.seconds if self.seconds else None

    @property
    def fraction(self) -> float:
        """0..1; 0 when the total is unknown."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total > 0 else 0.0

    @property
    def finished(self) -> bool:
        """Whether everything is done; False when the total is unknown."""
        return 0 < self.total <= self.done

    def advance(self, later: Progress) -> None:
        """Take over what is known now, and how fast it got there."""
        elapsed = later.at - self.at
        if elapsed > 0 and later.done >= self.done:
            # Time is summed up and not speed: a slow step counts by as long as it took.
            self.units = _RATE_MEMORY * self.units + later.done - self.done
            self.seconds = _RATE_MEMORY * self.seconds + elapsed
        self.done, self.total, self.unit = later.done, later.total, later.unit
        self.fields, self.at = later.fields, later.at


@dataclass(frozen=True, slots=True)
class ShownNode:
    """One node as shown. ``ranks`` counts the plan's, ``up`` those that run."""

    node: str
    stage: str
    ranks: int
    up: int
    progress: Progress | None
    fields: str
    reason: str

    @property
    def healthy(self) -> bool:
        return self.stage not in {"failed", "lost", "dirty"}


class Board:
    """Fed with every event in order; asked for rows at any time."""

    def __init__(self) -> None:
        self.state: RunState | None = None
        self.phase = Phase.LOAD
        self.began: float | None = None
        self.now = 0.0
        self._progress: dict[str, dict[int, Progress]] = {}
        self._figures: dict[str, tuple[int, dict[str, float]]] = {}
        self._ended: dict[str, set[int]] = {}
        self._work: Progress | None = None
        self._unfinished: set[tuple[str, int]] = set()

    def update(self, at: float, event: Event, state: RunState) -> None:
        self.state, self.now = state, at
        self.began = at if self.began is None else self.began
        match event:
            case Progressed():
                self._on_progress(at, event)
            case Reported():
                self._on_figure(event)
            case _:
                self.phase = machine.current_phase(state)
                self._on_change(at, event, state)

    def _on_change(self, at: float, event: Event, state: RunState) -> None:
        match event:
            case Divided(total=total, done=done, failed=failed):
                now = Progress(float(done + failed), float(total), "sample", at)
                self._work = _advanced(self._work, now)
            case RankExited(node=node, rank=rank):
                self._ended.setdefault(node, set()).add(rank)
            case ProcessExited(node=node):
                self._ended.setdefault(node, set()).update(state.nodes[node].ranks)
            case _:
                pass

    @property
    def elapsed(self) -> float:
        """Seconds from the first event to the last."""
        return 0.0 if self.began is None else self.now - self.began

    def rows(self) -> Iterator[ShownNode]:
        """One per node, in inventory order."""
        if self.state is not None:
            plan, nodes = self.state.plan, self.state.nodes
            shares = nodes.shares_of(plan) if plan is not None else {}
            excluded = {e.node: e.reason for e in plan.excluded} if plan is not None else {}
            for name, node in nodes.items():
                yield self._row(name, node, shares.get(name), excluded.get(name, ""))

    @property
    def rung(self) -> str:
        """How the ranks communicate, and whether that is less than was meant."""
        state = self.state
        if state is None or state.plan is None or not state.launching:
            return ""
        return f"{state.plan.rung} (degraded)" if state.falls else state.plan.rung

    @property
    def may_be_finished(self) -> bool:
        """Whether no rank that is still there is known to have something to do."""
        if self._work is not None:
            return self._work.finished
        if self.state is None or not self.state.nodes.tally.out:
            return not self._unfinished
        nodes = self.state.nodes
        return all(nodes[node].lost or nodes[node].problem for node, _ in self._unfinished)

    def overall(self) -> Progress | None:
        """The progress of the rank that is furthest behind: that of the whole. Of divisible work it
        is known. Nodes that are lost hold up nobody.
        """
        if self._work is not None:
            return self._work
        gone: set[str] = set()
        if self.state is not None and self.state.nodes.tally.out:
            nodes = self.state.nodes.items()
            gone = {name for name, node in nodes if node.lost or node.problem}
        going = [ranks for name, ranks in self._progress.items() if name not in gone]
        every = [p for ranks in going or self._progress.values() for p in ranks.values()]
        return min(every, key=lambda progress: progress.fraction, default=None)

    def fields(self) -> str:
        """The most telling figures of the lowest rank that reports any."""
        nodes = {*self._figures, *self._progress}
        return self._fields(min(nodes, key=self._lowest)) if nodes else ""

    def _lowest(self, node: str) -> int:
        ranks = set(self._progress.get(node, {}))
        if node in self._figures:
            ranks.add(self._figures[node][0])
        return min(ranks)

    def _row(self, name: str, node: NodeState, share: NodePlan | None, excluded: str) -> ShownNode:
        problem = node.lost or node.problem
        behind = min(self._progress.get(name, {}).values(), key=lambda p: p.fraction, default=None)
        return ShownNode(
            node=name,
            stage="excluded" if excluded else node_stage(node),
            ranks=len(share.ranks) if share else 0,
            up=len(node.ranks.keys() - self._ended.get(name, set())),
            progress=behind,
            fields=self._fields(name),
            reason=brief_text(excluded or (problem.message if problem else "")),
        )

    def _on_progress(self, at: float, event: Progressed) -> None:
        ranks = self._progress.setdefault(event.node, {})
        now = Progress(event.done, event.total, event.unit, at, event.fields)
        latest = ranks[event.rank] = _advanced(ranks.get(event.rank), now)
        place = (event.node, event.rank)
        if latest.finished:
            self._unfinished.discard(place)
        else:
            self._unfinished.add(place)

    def _on_figure(self, event: Reported) -> None:
        if event.step is None:
            return
        rank, figures = self._figures.get(event.node, (event.rank, {}))
        if event.rank < rank:
            rank, figures = event.rank, {}
        if event.rank == rank and (event.name in figures or len(figures) < MAX_FIELDS):
            figures[event.name] = event.value
        self._figures[event.node] = (rank, figures)

    def _fields(self, node: str) -> str:
        ranks = self._progress.get(node)
        fields: dict[str, float | str] = dict(ranks[min(ranks)].fields) if ranks else {}
        figures = self._figures.get(node)
        for name, value in (figures[1] if figures else {}).items():
            fields.setdefault(name, value)
        shown = list(fields.items())[:MAX_FIELDS]
        return "  ".join(f"{brief_text(name, 24)} {_value(value)}" for name, value in shown)


def _advanced(known: Progress | None, now: Progress) -> Progress:
    if known is None or not known.done:  # what comes before the first unit is start-up, no rate
        return now
    known.advance(now)
    return known


def _value(value: float | str) -> str:
    return brief_text(value, 24) if isinstance(value, str) else format_number(value)
