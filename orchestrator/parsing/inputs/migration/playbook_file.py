"""Playbooks: what both sides of a migration run, and the boxes that must be closed, in YAML."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from orchestrator.core.history.figure_gates import Quantity
from orchestrator.core.migration.playbook import (
    Applies,
    Box,
    ExpectedFigure,
    Likeness,
    NoiseBound,
    Playbook,
    Versions,
)
from orchestrator.parsing.inputs.gate_file import FigureGateEntry, parse_quantity, read_gate
from orchestrator.parsing.inputs.validation import Strict, validate_document
from orchestrator.parsing.inputs.yaml_source import Document, InputProblem, parse_yaml, refuse_input

MAX_BOXES, MAX_RULES = 100, 100
RULES = ("succeeded", "gates", "like", "noise", "traces", "versions", "way_back")

Text = Annotated[str, Field(min_length=1, max_length=300)]
Step = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
Steps = Annotated[list[Step], Field(max_length=MAX_RULES)]
Version = Annotated[str, Field(pattern=r"^[0-9]{1,6}(\.[0-9]{1,6}){0,3}$")]


class AppliesEntry(Strict):
    """When a box is asked."""

    gpu: str = Field(default="", max_length=100)
    gpus: int = Field(default=0, ge=0, le=100_000)


class LikenessEntry(Strict):
    """Figures that must not be worse than the old ones."""

    steps: Annotated[list[Step], Field(min_length=1, max_length=MAX_RULES)]
    within: Text
    figures: Annotated[list[Text], Field(max_length=MAX_RULES)] = Field(default_factory=list)


class NoiseEntry(Strict):
    """A figure that must not change by more than its noise."""

    step: Step
    figure: Text
    error: Text


class VersionsEntry(Strict):
    """The least versions."""

    driver: Version | None = None
    cuda: Version | None = None


class BoxEntry(Strict):
    """One box; at least one rule."""

    id: Step
    title: Text
    applies: AppliesEntry = AppliesEntry()
    succeeded: Steps = Field(default_factory=list)
    gates: Annotated[list[FigureGateEntry], Field(max_length=MAX_RULES)] = Field(
        default_factory=list
    )
    like: LikenessEntry | None = None
    noise: NoiseEntry | None = None
    traces: Steps = Field(default_factory=list)
    versions: VersionsEntry | None = None
    way_back: bool = False


class ExpectedFigureEntry(Strict):
    """What somebody expected of a figure."""

    metric: Text
    value: int | float | Text
    source: Text


class PlaybookFile(Strict):
    """The whole file."""

    name: Step
    summary: Text
    suite: Text
    smoke: Step
    boxes: Annotated[list[BoxEntry], Field(min_length=1, max_length=MAX_BOXES)]
    expected: Annotated[list[ExpectedFigureEntry], Field(max_length=MAX_RULES)] = Field(
        default_factory=list
    )


def load_playbook(data: bytes, source: str) -> Playbook:
    """Raises :class:`UsageError` that lists every problem with file, line and nearest key."""
    document = parse_yaml(data, source)
    file = validate_document(PlaybookFile, document)
    problems = [*_twice(file, document)]
    boxes = tuple(_box(at, entry, document, problems) for at, entry in enumerate(file.boxes))
    expected = tuple(
        _expectation(at, entry, document, problems) for at, entry in enumerate(file.expected)
    )
    if problems:
        refuse_input(problems, source)
    return Playbook(
        name=file.name,
        summary=file.summary,
        suite=file.suite,
        smoke=file.smoke,
        boxes=boxes,
        expectations=expected,
    )


def _twice(file: PlaybookFile, document: Document) -> Iterator[InputProblem]:
    counts = Counter(box.id for box in file.boxes)
    for at, box in enumerate(file.boxes):
        if counts[box.id] > 1:
            place = document.place(("boxes", at, "id"))
            yield InputProblem(place, f"two boxes have the id {box.id}")


def _box(at: int, entry: BoxEntry, document: Document, problems: list[InputProblem]) -> Box:
    path: tuple[str | int, ...] = ("boxes", at)
    if not any(getattr(entry, rule) for rule in RULES):
        what = f"box {entry.id} has no rule: nothing could close it"
        problems.append(InputProblem(document.place(path), what, f"one of {', '.join(RULES)}"))
    gates = tuple(
        read_gate(gate, document, (*path, "gates", number), problems)
        for number, gate in enumerate(entry.gates)
    )
    for number, gate in enumerate(entry.gates):
        _check_metric(gate.metric, document, (*path, "gates", number, "metric"), problems)
    _check_pattern(entry.applies.gpu, document, (*path, "applies", "gpu"), problems)
    return Box(
        id=entry.id,
        title=entry.title,
        applies=Applies(gpu=entry.applies.gpu, gpus=entry.applies.gpus),
        succeeded=tuple(entry.succeeded),
        gates=gates,
        like=_likeness(entry.like, document, (*path, "like", "within"), problems),
        noise=NoiseBound(**entry.noise.model_dump()) if entry.noise else None,
        traces=tuple(entry.traces),
        versions=_versions(entry.versions),
        way_back=entry.way_back,
    )


def _versions(entry: VersionsEntry | None) -> Versions | None:
    return Versions(driver=entry.driver or "", cuda=entry.cuda or "") if entry else None


def _likeness(
    entry: LikenessEntry | None,
    document: Document,
    path: tuple[str | int, ...],
    problems: list[InputProblem],
) -> Likeness | None:
    if entry is None:
        return None
    within = parse_quantity(entry.within)
    if within is None or within.unit != "%" or within.value <= 0:
        problems.append(InputProblem(document.place(path), "expected a percentage", "such as 5 %"))
        within = Quantity(1.0)
    return Likeness(
        steps=tuple(entry.steps), within=within.value / 100, figures=tuple(entry.figures)
    )


def _expectation(
    at: int, entry: ExpectedFigureEntry, document: Document, problems: list[InputProblem]
) -> ExpectedFigure:
    value = parse_quantity(entry.value)
    if value is None:
        place = document.place(("expected", at, "value"))
        problems.append(InputProblem(place, "expected a number with a unit", "such as 2.7 TB/s"))
    _check_metric(entry.metric, document, ("expected", at, "metric"), problems)
    return ExpectedFigure(metric=entry.metric, value=value or Quantity(0.0), source=entry.source)


def _check_metric(
    metric: str, document: Document, path: tuple[str | int, ...], problems: list[InputProblem]
) -> None:
    step, dot, figure = metric.partition(".")
    if not (step and dot and figure):
        what = "a figure is named with its step"
        problems.append(InputProblem(document.place(path), what, "such as quality.perplexity"))


def _check_pattern(
    pattern: str, document: Document, path: tuple[str | int, ...], problems: list[InputProblem]
) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        what = f"not a regular expression: {error}"
        problems.append(InputProblem(document.place(path), what, "such as B200|B300"))
