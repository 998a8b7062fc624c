"""What a bundle holds, as far as the checklist reads it. Data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median

from orchestrator.core.history.run_record import RunFigure, RunRecord
from orchestrator.core.verdict.result import Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A node as it was probed. Empty = not found out; ``gpus`` None likewise, () = it has none."""

    node: str
    gpus: tuple[str, ...] | None = None
    driver: str = ""
    cuda: str = ""
    kernel: str = ""
    modules: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEvidence:
    """A step of the baseline set. ``reason``: why it has no runs. ``traces`` are paths of profiles
    in the bundle; ``earlier`` runs of the same key, which tell how its figures vary.
    """

    name: str
    runs: tuple[RunRecord, ...] = ()
    traces: tuple[str, ...] = ()
    earlier: tuple[RunRecord, ...] = ()
    reason: str = ""

    @property
    def succeeded(self) -> bool:
        return bool(self.runs) and all(run.status is Status.SUCCEEDED for run in self.runs)

    @property
    def medians(self) -> dict[str, RunFigure]:
        """Every figure over all runs."""
        found: dict[str, RunFigure] = {}
        for name in dict.fromkeys(name for run in self.runs for name in run.figures):
            figures = [run.figures.get(name) for run in self.runs]
            known = [one for one in figures if one is not None]
            values = [one.value for one in known if one.value is not None and one.measured]
            complete = len(values) == len(self.runs)
            found[name] = replace(known[0], value=median(values) if complete else None)
        return found

    @property
    def text(self) -> str:
        """What can be looked up: the runs, or why there are none."""
        return ", ".join(run.run_id for run in self.runs) or self.reason or "not in the bundle"


@dataclass(frozen=True, slots=True, kw_only=True)
class WayBack:
    """The way back as it was tried. ``ended``: how its script did; ``differences``: what was not
    as the old bundle says.
    """

    succeeded: bool
    ended: str
    differences: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """One side of a migration. ``made``: seconds since the epoch; ``nodes`` which of the cluster
    were selected, ``project`` the folder that the suite's run was begun in.
    """

    name: str
    cluster: str
    made: float
    machines: tuple[Machine, ...]
    steps: Mapping[str, StepEvidence]
    nodes: str = ""
    project: str = ""

    @property
    def gpus(self) -> tuple[str, ...] | None:
        """The names of all GPUs; None where a node's are not known."""
        found = [machine.gpus for machine in self.machines]
        if not found or None in found:
            return None
        return tuple(name for gpus in found for name in gpus or ())

    @property
    def figures(self) -> dict[str, RunFigure]:
        """``step.figure``: the median of the step's runs, missing where one of them lacks it."""
        return {
            f"{name}.{figure}": found
            for name, step in self.steps.items()
            for figure, found in step.medians.items()
        }

    def step(self, name: str) -> StepEvidence:
        return self.steps.get(name) or StepEvidence(name=name)
