"""Verdicts of comparisons: like with like, effect and evidence, nothing that is missing passes."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.history.comparing import (
    ComparisonRules,
    FigureComparison,
    RunGroup,
    RunsComparison,
    compare_groups,
)
from orchestrator.core.history.figure_gates import (
    FigureGate,
    Quantity,
    convert_quantity,
    judge_gate,
)
from orchestrator.core.history.run_record import ComparisonKey, RunFigure, RunRecord
from orchestrator.core.model.workload import Direction
from orchestrator.core.verdict.result import Status, Verdict

KEY = ComparisonKey(workload="w", gpus="8 x H200")
PASSING = {Verdict.PASS, Verdict.WARN}


def make_run(
    name: str, values: Mapping[str, float | None], direction: Direction = Direction.HIGHER
) -> RunRecord:
    figures = {n: RunFigure(value=v, unit="u", direction=direction) for n, v in values.items()}
    return RunRecord(
        run_id=name,
        started=0.0,
        finished=1.0,
        cluster="c",
        workload="w",
        status=Status.SUCCEEDED,
        key=KEY,
        figures=figures,
    )


def compare_runs(
    a: RunRecord, b: RunRecord, earlier: tuple[RunRecord, ...] = (), **rules: object
) -> RunsComparison:
    groups = RunGroup("a", (a,)), RunGroup("b", (b,))
    return compare_groups(*groups, earlier, ComparisonRules(**rules))  # type: ignore[arg-type]


def compare_values(a: float, b: float, direction: Direction) -> FigureComparison:
    before, after = make_run("a", {"x": a}, direction), make_run("b", {"x": b}, direction)
    (figure,) = compare_runs(before, after).figures
    return figure


@pytest.mark.parametrize(
    "a,b,direction,verdict",
    [
        (100, 95, Direction.HIGHER, Verdict.FAIL),
        (100, 105, Direction.HIGHER, Verdict.WARN),
        (100, 105, Direction.LOWER, Verdict.FAIL),
        (100, 95, Direction.LOWER, Verdict.WARN),
        (100, 98, Direction.HIGHER, Verdict.PASS),
        (100, 50, Direction.INFO, Verdict.UNGATED),
        (0, 0, Direction.LOWER, Verdict.PASS),
        (0, 1, Direction.LOWER, Verdict.FAIL),
        (0, 1, Direction.HIGHER, Verdict.WARN),
        (-1, -2, Direction.HIGHER, Verdict.FAIL),
        (-1, -2, Direction.LOWER, Verdict.WARN),
    ],
)
def test_direction_and_tolerance_without_known_noise(
    a: float, b: float, direction: Direction, verdict: Verdict
) -> None:
    assert compare_values(a, b, direction).verdict is verdict


def test_noise_widens_the_tolerance() -> None:
    """A change of 5 % where runs differ by 4 % says nothing."""
    source = random.Random(1)
    earlier = tuple(make_run(str(n), {"x": 100 * source.gauss(1, 0.04)}) for n in range(30))
    found = compare_runs(make_run("a", {"x": 100.0}), make_run("b", {"x": 95.0}), earlier)
    assert found.verdict is Verdict.PASS
    assert found.figures[0].tolerance > 0.08


def test_one_figure_in_fifty_is_corrected_for() -> None:
    """What is significant alone is a warning among fifty."""
    source = random.Random(2)
    names = [f"x{n}" for n in range(50)]
    earlier = tuple(
        make_run(str(n), {name: 100 * source.gauss(1, 0.01) for name in names}) for n in range(12)
    )
    before = make_run("a", dict.fromkeys(names, 100.0))
    after = make_run("b", {**dict.fromkeys(names, 100.0), "x0": 95.0})
    alone = compare_runs(make_run("a", {"x0": 100.0}), make_run("b", {"x0": 95.0}), earlier)
    among = compare_runs(before, after, earlier)
    assert alone.figures[0].verdict is Verdict.FAIL
    assert among.figures[0].verdict is Verdict.WARN
    assert alone.figures[0].p is not None
    assert among.figures[0].p is not None
    assert among.figures[0].p > alone.figures[0].p


VALUES = st.one_of(st.none(), st.floats(allow_nan=True, allow_infinity=True))


@given(
    st.dictionaries(st.sampled_from("abcd"), VALUES),
    st.dictionaries(st.sampled_from("abcd"), VALUES),
)
def test_what_is_missing_never_passes(
    a: dict[str, float | None], b: dict[str, float | None]
) -> None:
    """Whatever runs report: a figure of A that B lacks, or that is no number, fails the whole."""
    found = compare_runs(make_run("a", a), make_run("b", b))
    for figure in found.figures:
        value = b.get(figure.name)
        if value is None or not math.isfinite(value):
            assert figure.verdict is Verdict.NOT_RUN
            assert found.verdict not in PASSING
    if not a and not b:
        assert found.verdict is Verdict.NOT_RUN


def test_other_keys_states_and_units_are_invalid() -> None:
    a, b = make_run("a", {"x": 1.0}), make_run("b", {"x": 1.0})
    h100 = replace(b, key=replace(KEY, gpus="8 x H100"))
    assert compare_runs(a, h100).verdict is Verdict.INVALID
    assert compare_runs(a, h100, across=frozenset({"gpus"})).verdict is Verdict.PASS
    assert "gpus: 8 x H200 and 8 x H100" in compare_runs(a, h100).reason
    assert compare_runs(a, replace(b, status=Status.DEGRADED)).verdict is Verdict.INVALID
    other = replace(b, figures={"x": RunFigure(value=1.0, unit="v", direction=Direction.HIGHER)})
    assert compare_runs(a, other).verdict is Verdict.INVALID


def test_a_group_is_invalid_if_one_of_its_runs_is() -> None:
    good, bad = make_run("a", {"x": 1.0}), replace(make_run("b", {"x": 1.0}), status=Status.FAILED)
    found = compare_groups(
        RunGroup("a", (good, bad)), RunGroup("b", (good,)), (), ComparisonRules()
    )
    assert (found.verdict, found.reason) == (Verdict.INVALID, "run b is failed")


@pytest.mark.parametrize(
    "value,unit,target,expected",
    [
        (2.4, "kW", "W", 2400.0),
        (2400, "W", "kW", 2.4),
        (1, "GiB", "bytes", 2.0**30),
        (1, "GB", "MB", 1000.0),
        (5, "", "tok/s", 5.0),
        (95, "%", "fraction", 0.95),
        (1, "ms", "s", 1e-3),
        (1, "m", "s", None),
        (1, "kW", "s", None),
        (1, "kW", "", None),
    ],
)
def test_units_of_gates(value: float, unit: str, target: str, expected: float | None) -> None:
    found = convert_quantity(Quantity(value, unit), target)
    assert found == (pytest.approx(expected) if expected is not None else None)


def test_gates_take_the_worse_side_where_one_is_declared() -> None:
    gate = FigureGate(metric="x", reason="r", within=0.03)
    before = {"x": RunFigure(value=100.0, direction=Direction.HIGHER)}
    for value, verdict in ((97.0, Verdict.PASS), (96.9, Verdict.FAIL), (150.0, Verdict.PASS)):
        after = {"x": RunFigure(value=value, direction=Direction.HIGHER)}
        assert judge_gate(gate, after, before).verdict is verdict
    neither = {"x": RunFigure(value=150.0)}
    assert judge_gate(gate, neither, before).verdict is Verdict.FAIL
    assert judge_gate(gate, neither, {}).verdict is Verdict.NOT_RUN
    assert judge_gate(gate, neither, {"x": RunFigure(value=0.0)}).verdict is Verdict.INVALID
