"""A suite's run as a bundle: its archive's files, each run as a record, what a way back needs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath

from orchestrator.adapters.archive.write_archive import Member, write_archive
from orchestrator.adapters.history.baselines import Baseline, render_baseline
from orchestrator.core.history.run_record import RunFigure, RunRecord
from orchestrator.core.migration.evidence import Machine
from orchestrator.core.model.facts import Facts
from orchestrator.core.verdict.energy import Energy

KIND = "migration"
MACHINES = "machines.json"
# Profiles that Nsight Systems, Nsight Compute and torch's profiler write.
TRACE = re.compile(r".*(\.nsys-rep|\.ncu-rep|trace[^/]*\.json(\.gz)?)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturedStep:
    """A step as its suite left it. ``earlier``: runs of its key before, which tell its noise."""

    name: str
    state: str
    reason: str = ""
    run: RunRecord | None = None
    earlier: tuple[RunRecord, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleContent:
    """All that goes into a bundle. ``members`` are the files of the suite's run and of its steps'
    runs; ``restore`` what the way back restores, by path below ``restore/``. ``project``: the
    folder that the suite's run was begun in. ``made``: seconds since the epoch. ``packages``: pins
    of each node's interpreters, by the name of a file.
    """

    playbook: str
    suite: str
    cluster: str
    nodes: str
    project: str
    made: float
    steps: tuple[CapturedStep, ...]
    machines: tuple[Machine, ...]
    members: Iterable[Member]
    restore: Mapping[str, bytes]
    packages: Mapping[str, bytes]


def write_bundle(path: Path, content: BundleContent) -> None:
    """Raises ``OSError`` and :class:`UsageError`; nothing is at ``path`` then that was not."""
    about = {
        "playbook": content.playbook,
        "suite": content.suite,
        "cluster": content.cluster,
        "nodes": content.nodes,
        "project": content.project,
        "steps": {step.name: _describe_step(step) for step in content.steps},
    }
    members = [*content.members, *_records(content), _machines(content.machines)]
    for folder, files in (("restore/", content.restore), ("packages/", content.packages)):
        members += [Member(f"{folder}{name}", data) for name, data in files.items()]
    write_archive(path, KIND, members, made=content.made, about=about)


def machine_of(facts: Facts) -> Machine:
    """What of a node the checklist asks for."""
    return Machine(
        node=facts.node,
        gpus=None if facts.assumed else tuple(gpu.name for gpu in facts.gpus),
        driver=facts.driver,
        cuda=facts.cuda,
        kernel=facts.kernel,
        modules=facts.modules,
    )


def with_power(record: RunRecord, energy: Energy | None) -> RunRecord:
    """With what the GPUs of the hungriest node drew together, in watts: ``node_watts_mean`` and
    ``node_watts_peak``, unless the run's energy is not valid.
    """
    if energy is None or not energy.valid:
        return record
    figures = dict(record.figures)
    for name, values in (
        ("node_watts_mean", [node.watts_mean for node in energy.nodes.values()]),
        ("node_watts_peak", [node.watts_peak for node in energy.nodes.values()]),
    ):
        known = [value for value in values if value is not None]
        if known and len(known) == len(values):
            figures[name] = RunFigure(value=max(known), unit="W")
    return replace(record, figures=figures)


def is_trace(path: str) -> bool:
    """Whether a file of a run is a profile, by its name."""
    return TRACE.fullmatch(PurePosixPath(path).name) is not None


def _describe_step(step: CapturedStep) -> dict[str, str]:
    run_id = step.run.run_id if step.run else ""
    return {"state": step.state, "reason": step.reason, "run": run_id}


def _records(content: BundleContent) -> Iterator[Member]:
    """As files that ``baseline import`` reads, too."""
    for step in content.steps:
        if step.run is not None:
            found = Baseline(name=step.name, set_at=content.made, runs=(step.run,))
            yield Member(f"records/{step.name}.json", render_baseline(found).encode())
        if step.earlier:
            before = Baseline(name=step.name, set_at=content.made, runs=step.earlier)
            yield Member(f"earlier/{step.name}.json", render_baseline(before).encode())


def _machines(machines: tuple[Machine, ...]) -> Member:
    content = [asdict(machine) for machine in machines]
    return Member(MACHINES, json.dumps({"machines": content}, indent=1).encode() + b"\n")
