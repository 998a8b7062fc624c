"""Nodes over time: what became of each in the latest runs, its GPUs, and which run holds them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.history.run_entry import read_plan, read_request
from orchestrator.adapters.store.journal import JournalReader
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.run_list import RunSummary, read_result
from orchestrator.adapters.web.runs.run_index import OVER
from orchestrator.adapters.web.runs.run_view import fold_indices
from orchestrator.core.base.codec import from_json
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.base.nodeset import natural_key
from orchestrator.core.doctor.check_model import Level, State, Subject
from orchestrator.core.doctor.checkup import readings_in, run_checks
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.core.run.events import Probed
from orchestrator.core.verdict.result import NodeResult

SHOWN_RUNS = 40
MAX_NODES = 1000
PROBED_RUNS = 12  # of so many of the latest runs what they found on nodes is read
TONES = {"used": "good", "lost": "bad", "failed": "bad", "dirty": "bad", "running": "live"}
_UNREADABLE = (OSError, ValueError, OrchestrateError)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpot:
    """What became of a node in a run."""

    run_id: str
    state: str
    reason: str = ""

    @property
    def tone(self) -> str:
        return TONES.get(self.state, "odd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """A live run that has GPUs of a node; ``gpus`` empty: it runs on its processors."""

    run_id: str
    gpus: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRow:
    """One node of a cluster. ``findings``: what its latest probe shows to be wrong, worst first;
    ``spots``: the latest run first.
    """

    name: str
    cluster: str
    gpus: str
    holders: tuple[Holder, ...]
    findings: tuple[str, ...]
    spots: tuple[NodeSpot, ...]

    @property
    def tone(self) -> str:
        """As the latest run left it, or as it was probed."""
        latest = self.spots[0].tone if self.spots else ""
        return "odd" if self.findings and latest in {"good", "live", ""} else latest


@dataclass(slots=True)
class _Known:
    """What is put together of one node."""

    spots: list[NodeSpot] = field(default_factory=list)
    holders: list[Holder] = field(default_factory=list)
    facts: Facts | None = None
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Probe:
    facts: Facts
    findings: tuple[str, ...]


class NodeHistory:
    """Reads results and probes of runs, each once. For one thread at a time."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._results: dict[RunSummary, tuple[NodeResult, ...]] = {}
        self._probes: dict[RunSummary, Mapping[str, _Probe]] = {}

    def rows(self, runs: Sequence[RunSummary]) -> tuple[NodeRow, ...]:
        """The nodes of the latest of ``runs`` (newest first), by cluster and name."""
        latest = runs[:SHOWN_RUNS]
        self._forget_all_but(latest)
        nodes: dict[tuple[str, str], _Known] = {}
        for number, run in enumerate(latest):
            for name, spot in self._spots(run):
                nodes.setdefault((run.cluster, name), _Known()).spots.append(spot)
            for name, holder in self._holders(run):
                nodes.setdefault((run.cluster, name), _Known()).holders.append(holder)
            for name, probe in (self._probed(run) if number < PROBED_RUNS else {}).items():
                known = nodes.setdefault((run.cluster, name), _Known())
                if known.facts is None:
                    known.facts, known.findings = probe.facts, probe.findings
        ordered = sorted(nodes.items(), key=lambda item: (item[0][0], natural_key(item[0][1])))
        return tuple(_row(cluster, name, known) for (cluster, name), known in ordered[:MAX_NODES])

    def _spots(self, run: RunSummary) -> Iterator[tuple[str, NodeSpot]]:
        if run.state not in OVER:
            return
        for node in self._nodes(run):
            yield node.name, NodeSpot(run_id=run.run_id, state=node.state, reason=node.reason)

    def _nodes(self, run: RunSummary) -> tuple[NodeResult, ...]:
        if run not in self._results:
            try:
                result = read_result(self._layout.run(run.run_id))
                result = result or open_history(self._layout).read_result(run.run_id)
            except _UNREADABLE:
                result = None
            self._results[run] = result.nodes if result is not None else ()
        return self._results[run]

    def _holders(self, run: RunSummary) -> Iterator[tuple[str, Holder]]:
        if run.state in OVER:
            return
        plan = read_plan(self._layout.run(run.run_id))
        for share in plan.nodes if plan is not None else ():
            yield share.name, Holder(run_id=run.run_id, gpus=fold_indices(share.gpus))

    def _probed(self, run: RunSummary) -> Mapping[str, _Probe]:
        if run not in self._probes:
            folder = self._layout.run(run.run_id)
            request = read_request(folder)
            if request is None:
                return {}
            probes = dict(_read_probes(folder, request.cluster.workers))
            if run.state not in OVER and len(probes) < len(request.cluster.workers):
                return probes  # nodes may still answer
            self._probes[run] = probes
        return self._probes[run]

    def _forget_all_but(self, runs: Sequence[RunSummary]) -> None:
        self._results = {run: self._results[run] for run in runs if run in self._results}
        self._probes = {run: self._probes[run] for run in runs if run in self._probes}


def _row(cluster: str, name: str, known: _Known) -> NodeRow:
    kinds: dict[str, int] = {}
    for gpu in known.facts.gpus if known.facts is not None else ():
        kinds[gpu.name] = kinds.get(gpu.name, 0) + 1
    return NodeRow(
        name=name,
        cluster=cluster,
        gpus=", ".join(f"{count} x {kind}" for kind, count in kinds.items()),
        holders=tuple(known.holders),
        findings=known.findings,
        spots=tuple(known.spots),
    )


def _read_probes(folder: RunFolder, workers: Sequence[NodeSpec]) -> Iterator[tuple[str, _Probe]]:
    """What the run found on its nodes when it began, with what the doctor says of it."""
    facts: dict[str, Facts] = {}
    try:
        for entry in JournalReader(folder.journal).read():
            if entry.event.get("type") == "Probed":
                event: Probed = from_json(Probed, entry.event)
                facts[event.node] = event.facts
    except _UNREADABLE:
        return
    subjects = [Subject(spec=s, facts=facts[s.name]) for s in workers if s.name in facts]
    found: dict[str, list[str]] = {}
    for reading in readings_in(run_checks(subjects, Level.QUICK), State.FAIL, State.WARN):
        found.setdefault(reading.node, []).append(f"{reading.name}: {reading.what}")
    for name, each in facts.items():
        yield name, _Probe(each, tuple(found.get(name, ())))
