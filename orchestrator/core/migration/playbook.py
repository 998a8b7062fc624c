"""What a migration must show: boxes, each with the rules that close it. Data.

``playbooks/*.yaml`` are read into these; ``core.migration.checklist`` judges them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from orchestrator.core.history.figure_gates import FigureGate, Quantity


@dataclass(frozen=True, slots=True, kw_only=True)
class Applies:
    """When a box is asked: for GPUs whose name holds ``gpu`` (a regular expression), for at least
    ``gpus`` of them. Where it is not known what the machines have, it is asked.
    """

    gpu: str = ""
    gpus: int = 0

    @property
    def text(self) -> str:
        parts = [f"GPUs named {self.gpu}" * bool(self.gpu), f"{self.gpus} GPUs" * bool(self.gpus)]
        return " and ".join(filter(None, parts))

    def holds(self, names: tuple[str, ...]) -> bool:
        """Whether machines with GPUs of these ``names`` are asked."""
        fitting = [name for name in names if re.search(self.gpu, name)]
        return len(fitting) >= max(self.gpus, 1 if self.gpu else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Likeness:
    """Figures of ``steps`` that must not be worse than the old ones by more than ``within``, a
    fraction. ``figures`` () = all that have a direction.
    """

    steps: tuple[str, ...]
    within: float
    figures: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseBound:
    """``figure`` of ``step`` must differ from the old one by no more than chance explains;
    ``error`` is the figure that holds its standard error.
    """

    step: str
    figure: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """The least versions; empty = any, so long as it is known."""

    driver: str = ""
    cuda: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedFigure:
    """What the playbook's author expected of ``metric``, ``step.figure``, which physics may
    contradict. It closes no box.
    """

    metric: str
    value: Quantity
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """One line of the checklist. Every rule that is set must hold. ``traces``: steps of which a
    profile must be in the bundle; ``succeeded``: steps that must have run.
    """

    id: str
    title: str
    applies: Applies = Applies()
    succeeded: tuple[str, ...] = ()
    gates: tuple[FigureGate, ...] = ()
    like: Likeness | None = None
    noise: NoiseBound | None = None
    traces: tuple[str, ...] = ()
    versions: Versions | None = None
    way_back: bool = False

    @property
    def steps(self) -> tuple[str, ...]:
        """Those whose evidence it asks for."""
        gates = (name for gate in self.gates for name in (gate.metric, gate.of or gate.metric))
        return (
            *self.succeeded,
            *(name.partition(".")[0] for name in gates),
            *(self.like.steps if self.like else ()),
            *((self.noise.step,) if self.noise else ()),
            *self.traces,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Playbook:
    """``suite`` is what both sides run; ``smoke`` the step of it that the way back runs."""

    name: str
    summary: str
    suite: str
    smoke: str
    boxes: tuple[Box, ...]
    expectations: tuple[ExpectedFigure, ...] = ()

    @property
    def steps(self) -> tuple[str, ...]:
        """Every step that a box asks for, and that of the way back, each once."""
        found = [self.smoke, *(name for box in self.boxes for name in box.steps)]
        return tuple(dict.fromkeys(found))
