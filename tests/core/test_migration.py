"""The checklist of a migration: GO only where every box that applies is closed by evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.history.figure_gates import FigureGate, Quantity
from orchestrator.core.history.run_record import ComparisonKey, RunFigure, RunRecord
from orchestrator.core.migration.checklist import (
    BoxOutcome,
    Checklist,
    PhysicalBound,
    contradiction,
    fill_checklist,
)
from orchestrator.core.migration.evidence import Bundle, Machine, StepEvidence, WayBack
from orchestrator.core.migration.playbook import (
    Applies,
    Box,
    ExpectedFigure,
    Likeness,
    NoiseBound,
    Playbook,
    Versions,
)
from orchestrator.core.model.workload import Direction
from orchestrator.core.verdict.result import Status, Verdict

FAST = RunFigure(value=1000.0, unit="tok/s", direction=Direction.HIGHER)
PERPLEXITY = RunFigure(value=12.0, unit="", direction=Direction.LOWER)
ERROR = RunFigure(value=0.05)
FP8_GATE = FigureGate(
    metric="fp8.tokens_per_s", within=0.12, of="inference.tokens_per_s", reason="playbook"
)
PLAYBOOK = Playbook(
    name="test",
    summary="",
    suite="s",
    smoke="inference",
    boxes=(
        Box(id="functional", title="Functional tests", succeeded=("inference", "quality", "fp8")),
        Box(id="speed", title="Speed", like=Likeness(steps=("inference",), within=0.05)),
        Box(id="perplexity", title="Perplexity",
            noise=NoiseBound(step="quality", figure="perplexity", error="perplexity_error")),
        Box(id="fp8", title="fp16 to fp8", gates=(FP8_GATE,)),
        Box(id="traces", title="Traces", traces=("inference",)),
        Box(id="platform", title="Driver", versions=Versions(driver="580", cuda="13.0")),
        Box(id="blackwell", title="B200 only", applies=Applies(gpu="B200", gpus=2), gates=(
            FigureGate(metric="power.watts", at_most=Quantity(2.4, "kW"), reason="playbook"),)),
        Box(id="back", title="Way back", way_back=True),
    ),
    expectations=(
        ExpectedFigure(metric="acceptance.hbm_triad", value=Quantity(2.7, "TB/s"), source="book"),
    ),
)  # fmt: skip
TRIED = WayBack(succeeded=True, ended="exit 0 after 12 s")
HBM = {"acceptance.hbm_triad": PhysicalBound(unit="TB/s", limit=8.0, best=7.35, source="s")}


def record(run_id: str, **figures: RunFigure) -> RunRecord:
    key = ComparisonKey(workload="w", configuration="c", nodes=run_id.partition("-")[0])
    return RunRecord(
        run_id=run_id, started=0.0, finished=1.0, cluster="c", workload="w",
        status=Status.SUCCEEDED, key=key, figures=figures,
    )  # fmt: skip


def bundle(name: str) -> Bundle:
    def step(step: str, **figures: RunFigure) -> StepEvidence:
        run = record(f"{name}-{step}", **figures)
        traces = (f"runs/{run.run_id}/trace.json",) if step == "inference" else ()
        return StepEvidence(name=step, runs=(run,), traces=traces)

    steps = (
        step("inference", tokens_per_s=FAST),
        step("quality", perplexity=PERPLEXITY, perplexity_error=ERROR),
        step("fp8", tokens_per_s=FAST),
    )
    gpus = ("NVIDIA H200", "NVIDIA H200")
    machine = Machine(node="n1", gpus=gpus, driver="580.65.06", cuda="13.0")
    return Bundle(
        name=name, cluster=name, made=0.0, machines=(machine,), steps={s.name: s for s in steps}
    )


def changed(side: Bundle, step: str, **how: object) -> Bundle:
    return replace(side, steps={**side.steps, step: replace(side.steps[step], **how)})


def with_figures(side: Bundle, step: str, **values: float | None) -> Bundle:
    (run,) = side.steps[step].runs
    figures = {
        name: replace(one, value=values.get(name, one.value)) for name, one in run.figures.items()
    }
    return changed(side, step, runs=(replace(run, figures=figures),))


def without_step(side: Bundle, step: str) -> Bundle:
    return replace(side, steps={name: one for name, one in side.steps.items() if name != step})


def filled(new: Bundle, old: Bundle | None = None, tried: WayBack | None = TRIED) -> Checklist:
    return fill_checklist(PLAYBOOK, old or bundle("old"), new, tried, HBM)


def open_ids(checklist: Checklist) -> set[str]:
    return {outcome.box.id for outcome in checklist.open_boxes}


def outcome(checklist: Checklist, id: str) -> BoxOutcome:
    return next(one for one in checklist.boxes if one.box.id == id)


def test_equal_bundles_of_other_machines_are_go() -> None:
    checklist = filled(bundle("new"))
    assert (checklist.go, open_ids(checklist)) == (True, set())
    blackwell = outcome(checklist, "blackwell")
    assert (blackwell.verdict, blackwell.lines) == (None, ())
    assert "B200" in blackwell.why
    for one in checklist.boxes:
        assert all(line.value and line.target and line.evidence for line in one.lines), one


# What is changed in the new bundle -> the boxes that must be open, and the word that says why.
PLANTED: Mapping[str, tuple[Callable[[Bundle], Bundle], set[str], str]] = {
    "8 % slower": (
        lambda b: with_figures(b, "inference", tokens_per_s=920.0),
        {"speed"},
        "tokens_per_s 1,000 tok/s -> 920 tok/s (-8.0 %)",
    ),
    "perplexity": (
        lambda b: with_figures(b, "quality", perplexity=12.2),
        {"perplexity"},
        "12 -> 12.2: +0.2, noise 0.139",
    ),
    "better perplexity than chance": (
        lambda b: with_figures(b, "quality", perplexity=11.8),
        {"perplexity"},
        "-0.2",
    ),
    "no error of the perplexity": (
        lambda b: with_figures(b, "quality", perplexity_error=None),
        {"perplexity"},
        "not reported: quality.perplexity_error",
    ),
    "no trace": (
        lambda b: changed(b, "inference", traces=()),
        {"traces"},
        "inference: no trace on the new side",
    ),
    "fp8 too slow": (
        lambda b: with_figures(b, "fp8", tokens_per_s=870.0),
        {"fp8"},
        "-13.0 %",
    ),
    "old driver": (
        lambda b: replace(b, machines=(replace(b.machines[0], driver="570.86.15"),)),
        {"platform"},
        "driver 570.86.15",
    ),
    "unknown CUDA": (
        lambda b: replace(b, machines=(replace(b.machines[0], cuda=""),)),
        {"platform"},
        "CUDA unknown",
    ),
    "a figure that was not reported": (
        lambda b: with_figures(b, "inference", tokens_per_s=None),
        {"speed", "fp8"},
        "not reported",
    ),
    "a step that was not run": (
        lambda b: without_step(b, "quality"),
        {"functional", "perplexity"},
        "quality: not run",
    ),
    "GPUs that nobody saw": (
        lambda b: replace(b, machines=(replace(b.machines[0], gpus=None),)),
        {"blackwell"},
        "power.watts",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", PLANTED)
def test_each_planted_fault_opens_its_box_and_no_other(fault: str) -> None:
    plant, expected, word = PLANTED[fault]
    checklist = filled(plant(bundle("new")))
    assert open_ids(checklist) == expected
    assert not checklist.go
    shown = [line.value for one in checklist.open_boxes for line in one.lines]
    assert any(word in value for value in shown), shown


def test_a_run_that_failed_closes_nothing_that_it_reported() -> None:
    new = bundle("new")
    failed = replace(new.steps["fp8"].runs[0], status=Status.FAILED)
    checklist = filled(changed(new, "fp8", runs=(failed,)))
    assert open_ids(checklist) == {"functional", "fp8"}
    assert outcome(checklist, "fp8").verdict is Verdict.INVALID


def test_other_settings_are_not_compared() -> None:
    new = bundle("new")
    (run,) = new.steps["inference"].runs
    other = replace(run, key=replace(run.key, configuration="another"))
    checklist = filled(changed(new, "inference", runs=(other,)))
    assert open_ids(checklist) == {"speed"}
    assert "configuration: c and another" in outcome(checklist, "speed").lines[0].value


@pytest.mark.parametrize(
    "tried,verdict",
    [
        (None, Verdict.NOT_RUN),
        (WayBack(succeeded=False, ended="exit 1"), Verdict.FAIL),
        (replace(TRIED, differences=("driver: 570 and 580",)), Verdict.FAIL),
        (TRIED, Verdict.PASS),
    ],
)
def test_a_way_back_counts_when_it_was_tried(tried: WayBack | None, verdict: Verdict) -> None:
    checklist = filled(bundle("new"), tried=tried)
    assert outcome(checklist, "back").verdict is verdict
    assert checklist.go == (verdict is Verdict.PASS)


def test_nothing_that_applies_is_no_go() -> None:
    only = Box(id="b", title="", applies=Applies(gpu="B200"), way_back=True)
    playbook = replace(PLAYBOOK, boxes=(only,))
    assert not fill_checklist(playbook, bundle("old"), bundle("new"), TRIED, {}).go


@given(st.sets(st.sampled_from(["inference", "quality", "fp8"])), st.booleans())
def test_missing_evidence_never_closes_a_box(gone: set[str], on_both: bool) -> None:
    """Whatever steps are missing, on either side: what depends on them is open."""
    old, new = bundle("old"), bundle("new")
    for step in gone:
        new = without_step(new, step)
        old = without_step(old, step) if on_both else old
    checklist = filled(new, old)
    assert checklist.go == (not gone)
    needs = {"inference": {"functional", "speed", "fp8", "traces"},
             "quality": {"functional", "perplexity"}, "fp8": {"functional", "fp8"}}  # fmt: skip
    assert open_ids(checklist) == {box for step in gone for box in needs[step]}


# ---- physics ------------------------------------------------------------------------------------


def test_an_expectation_that_physics_contradicts_is_flagged() -> None:
    (flag,) = filled(bundle("new")).flags
    assert flag.expectation.metric == "acceptance.hbm_triad"
    assert flag.what.startswith("only 37% of the best public figure, 7.35 TB/s")


@pytest.mark.parametrize(
    "value,bound,word",
    [
        (Quantity(1.29, "PFLOPS"), PhysicalBound(unit="TFLOPS", limit=2250, best=1745), "only 74%"),
        (Quantity(2.3, "PFLOPS"), PhysicalBound(unit="TFLOPS", limit=2250, best=1745), "above"),
        (Quantity(1700, "TFLOPS"), PhysicalBound(unit="TFLOPS", limit=2250, best=1745), ""),
        (Quantity(250, "GB/s"), PhysicalBound(unit="GB/s", limit=900), "only 28%"),
        (Quantity(700, "GB/s"), PhysicalBound(unit="GB/s", limit=900), ""),
        (Quantity(3, "kW"), PhysicalBound(unit="TB/s", limit=8), "no measure"),
        (Quantity(3, "TB/s"), PhysicalBound(unit="TB/s"), ""),
    ],
)
def test_expectations_are_held_against_limit_and_best(
    value: Quantity, bound: PhysicalBound, word: str
) -> None:
    said = contradiction(value, bound)
    assert word in said
    assert bool(said) == bool(word)
