"""Gate files: bounds on figures with the reason for each, in YAML."""

from __future__ import annotations

import re

from pydantic import Field

from orchestrator.core.history.figure_gates import FigureGate, Quantity
from orchestrator.parsing.inputs.validation import Strict, validate_document
from orchestrator.parsing.inputs.yaml_source import Document, InputProblem, parse_yaml, refuse_input

MAX_GATES = 1000
_QUANTITY = re.compile(r"(-?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]{1,3})?)\s*([^\W\d_].{0,39}|%)?")
_PERCENT = "%"


class FigureGateEntry(Strict):
    """One gate. ``within`` needs a baseline, or names another figure of the same run as ``of``."""

    metric: str = Field(min_length=1, max_length=200)
    reason: str = Field(min_length=1, max_length=1000)
    within: str | None = None
    of: str | None = None
    at_least: int | float | str | None = None
    at_most: int | float | str | None = None


class GateFile(Strict):
    """The whole file."""

    gates: list[FigureGateEntry] = Field(min_length=1, max_length=MAX_GATES)


def load_gates(data: bytes, source: str) -> tuple[FigureGate, ...]:
    """Raises :class:`UsageError` that lists every problem with file, line and nearest key."""
    document = parse_yaml(data, source)
    file = validate_document(GateFile, document)
    problems: list[InputProblem] = []
    gates = tuple(
        read_gate(entry, document, ("gates", index), problems)
        for index, entry in enumerate(file.gates)
    )
    if problems:
        refuse_input(problems, source)
    return gates


def read_gate(
    entry: FigureGateEntry,
    document: Document,
    path: tuple[str | int, ...],
    problems: list[InputProblem],
) -> FigureGate:
    """The gate at ``path`` of a document; what is wrong with it is appended to ``problems``."""
    here = document.place(path)

    def complain(key: str, what: str, remedy: str) -> None:
        problems.append(InputProblem(document.place((*path, key)), what, remedy))

    bounds: dict[str, Quantity | None] = {}
    for key, value in (("at_least", entry.at_least), ("at_most", entry.at_most)):
        bounds[key] = None if value is None else parse_quantity(value)
        if value is not None and bounds[key] is None:
            complain(key, f"{key}: expected a number with a unit or without", "such as 2.4 kW")
    within = None if entry.within is None else parse_quantity(entry.within)
    if entry.within is not None and (within is None or within.unit != _PERCENT or within.value < 0):
        complain("within", "within: expected a percentage", "such as 3 %")
    if (entry.within is None) == (entry.at_least is None and entry.at_most is None):
        what = "a gate has either within, or at_least, at_most or both"
        problems.append(InputProblem(here, what))
    if entry.of is not None and entry.within is None:
        complain("of", "of: belongs to within", "such as within: 12 %")
    return FigureGate(
        metric=entry.metric,
        reason=entry.reason,
        within=within.value / 100 if within else None,
        of=entry.of,
        place=str(here),
        **bounds,
    )


def parse_quantity(value: float | str) -> Quantity | None:
    """``2.4 kW``, ``3 %`` or a plain number; None for anything else."""
    if not isinstance(value, str):
        return Quantity(float(value))
    match = _QUANTITY.fullmatch(value.strip())
    return Quantity(float(match[1]), (match[2] or "").strip()) if match else None
