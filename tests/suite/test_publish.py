"""Documents say what archived runs say: each figure with its run, and no blank to fill in."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.archive.write_archive import Member, write_archive
from orchestrator.adapters.report.result_json import to_object
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.suite.archived_steps import (
    ArchivedStep,
    find_archives,
    gather_steps,
    read_steps_of,
)
from orchestrator.adapters.suite.published import DOCUMENTS
from orchestrator.adapters.suite.suite_folder import (
    SuiteOrder,
    create_suite_run,
    new_suite_folder,
)
from orchestrator.adapters.suite.suite_report import (
    SuiteReport,
    report_object,
    suite_html,
    suite_markdown,
)
from orchestrator.core.base.errors import ExitCode, UsageError
from orchestrator.core.captures.outcome import CaptureResult, CaptureState
from orchestrator.core.model.prices import ElectricityPrice
from orchestrator.core.suite.step_records import StepOutcome, StepState
from orchestrator.core.suite.suite_model import Step, Suite
from orchestrator.core.verdict.energy import Energy
from orchestrator.core.verdict.result import MetricResult, Result, Status, Verdict

BLANK = re.compile(
    r"\b(TODO|TBD|FIXME|None|nan|null|N/A|XX+|placeholder)\b|\{[^}]*\}|<[^>]*>|\|  \|"
)
PRICE = ElectricityPrice(
    name="Virginia", currency="USD", per_kwh=0.0892, pue=1.58, date="2023-12-31", source="EIA"
)
STEPS = (
    Step(name="power", workload="power", why="tokens per joule"),
    Step(name="nvlink", workload="acceptance", why="bandwidth of NVLink"),
    Step(name="traced", workload="large", optional=True, why="kernels"),
)


def result(run_id: str, metrics: dict[str, MetricResult], energy: Energy | None = None) -> Result:
    return Result(
        run_id=run_id,
        status=Status.SUCCEEDED,
        exit_code=ExitCode.DONE,
        cluster="b200x8",
        workload="w",
        launcher="torchrun",
        world_size=8,
        metrics=metrics,
        energy=energy,
        captures=(
            CaptureResult(
                kind="nvlink",
                state=CaptureState.PARTIAL,
                reasons=("gpu01: no counters",),
                figures={"sent_gb_s": 312.5},
            ),
        ),
    )


def archive(
    folder: Path,
    *,
    made: float = 1000.0,
    nvlink: StepState = StepState.FAILED,
    left_out: tuple[str, ...] = (),
) -> Path:
    """A suite with one efficiency run, one run whose figure misses its gate, and a skipped step."""
    power = {
        "output_tokens_per_s.bf16.batch8": MetricResult(value=4000.0, unit="tok/s"),
        "watts.bf16.batch8": MetricResult(value=500.0, unit="W"),
        "tokens_per_joule.bf16.batch8": MetricResult(value=8.0, unit="tok/J"),
        "output_tokens_per_s.fp32.batch8": MetricResult(value=1000.0, unit="tok/s"),
    }
    worst = MetricResult(value=1.0, unit="figures", verdict=Verdict.FAIL, max=0.0)
    energy = Energy(valid=False, reasons=("gpu01: no NVML",), gpus=8, seconds=60.0, joules=9000.0)
    number = f"{made:.0f}"
    results = {
        "power": result(f"run-p{number}", power, energy),
        "nvlink": result(f"run-n{number}", {"figures_failed": worst} if nvlink != "passed" else {}),
    }
    outcomes = (
        StepOutcome(step="power", optional=False, state=StepState.PASSED, run_id=f"run-p{number}"),
        StepOutcome(step="nvlink", optional=False, state=nvlink, run_id=f"run-n{number}"),
        StepOutcome(
            step="traced", optional=True, state=StepState.SKIPPED, reason="needs nsys, not here"
        ),
    )
    outcomes = tuple(_leave_out(each) if each.step in left_out else each for each in outcomes)
    report = SuiteReport(
        suite=Suite(name="b200x8", source="s", steps=STEPS),
        run_id=f"b{number}",
        cluster="b200x8",
        outcomes=outcomes,
        results={step: each for step, each in results.items() if step not in left_out},
        ended=made,
    )
    return write(folder / f"b{number}.tar.gz", report, left_out)


def _leave_out(outcome: StepOutcome) -> StepOutcome:
    state, reason = StepState.SKIPPED, "not in --only"
    return replace(outcome, state=state, reason=reason, run_id="")


def write(path: Path, report: SuiteReport, left_out: tuple[str, ...]) -> Path:
    order = {"skipped": dict.fromkeys(left_out, "not in --only")}
    members = [
        Member("result.json", json.dumps(report_object(report, None)).encode()),
        Member("order.json", json.dumps(order).encode()),
        *(
            Member(f"runs/{each.run_id}/result.json", json.dumps(to_object(each)).encode())
            for each in report.results.values()
        ),
    ]
    write_archive(path, "suite", members, made=report.ended, about={})
    return path


def shelve(layout: Layout, made: float, left_out: tuple[str, ...] = ()) -> Path:
    """The same as a run of the suite that is kept here."""
    folder = new_suite_folder(layout, f"b{made:.0f}")
    skipped = dict.fromkeys(left_out, "not in --only")
    order = SuiteOrder(suite="b200x8", source="s", cluster="b200x8", began=made, skipped=skipped)
    create_suite_run(folder, order, b"", {})
    path = archive(folder.path, made=made, left_out=left_out)
    steps = [{"name": step.name} for step in STEPS]
    place = {"suite": "b200x8", "cluster": "b200x8", "steps": steps, "archive": {"path": str(path)}}
    folder.result.write_text(json.dumps(place))
    return path


def documents(steps: list[ArchivedStep]) -> dict[str, str]:
    return {name: render(steps, [PRICE]) for name, render in DOCUMENTS.items()}


def rows(document: str) -> list[str]:
    """The rows of tables, without headings and rules."""
    tables = re.findall(r"\| --- \|\n((?:\|.*\n?)+)", document)
    return [row for table in tables for row in table.splitlines()]


def test_every_figure_has_its_run_and_nothing_is_blank(tmp_path: Path) -> None:
    made = documents(read_steps_of(archive(tmp_path)))

    for name, document in made.items():
        assert not BLANK.search(document), (name, document)
        assert rows(document)
        for row in rows(document):
            assert re.search(r"run-[pn]1000 \|$|none, see b1000 \|$", row), (name, row)


def test_baselines_have_power_and_what_electricity_costs(tmp_path: Path) -> None:
    """Only loads whose power was measured: 1e6 tok / 8 tok/J = 125 kJ = 0.03472 kWh."""
    document = documents(read_steps_of(archive(tmp_path)))["power_efficiency_baselines.md"]

    cost = 1e6 / 8 / 3.6e6 * 1.58 * 0.0892
    (row,) = [row for row in rows(document) if row.startswith("| bf16.batch8")]
    assert row == f"| bf16.batch8 | 4,000 tok/s | 500 W | 8 tok/J | {cost:.4g} USD | run-p1000 |"
    assert "fp32" not in document
    assert "| power | energy is not valid | gpu01: no NVML | run-p1000 |" in document


def test_results_have_the_figures_of_captures(tmp_path: Path) -> None:
    document = documents(read_steps_of(archive(tmp_path)))["results.md"]

    assert r"| capture nvlink: sent\_gb\_s | 312.5 | none | run-p1000 |" in document


def test_gaps_are_open_until_a_later_archive_closes_them(tmp_path: Path) -> None:
    old = read_steps_of(archive(tmp_path))
    new = read_steps_of(archive(tmp_path, made=2000.0, nvlink=StepState.PASSED))
    before, after = documents(old)["known_gaps.md"], documents([*new, *old])["known_gaps.md"]

    assert "| b200x8 | nvlink | bandwidth of NVLink | open | failed | run-n1000 |" in before
    assert r"| figures\_failed | open | fail: 1 figures, at most 0 | run-n1000 |" in before
    assert "| traced | kernels | open | skipped: needs nsys, not here | none, see b1000 |" in before
    assert "| capture nvlink | open | partial; gpu01: no counters | run-p1000 |" in before
    assert "| b200x8 | nvlink | bandwidth of NVLink | closed | passed | run-n2000 |" in after
    assert "n1000" not in after


def test_a_partial_run_renews_its_steps_and_hides_no_other(tmp_path: Path) -> None:
    """Each step has the run that it was in last; archives that say nothing more are not read."""
    layout = Layout(tmp_path)
    for made, left_out in ((1000.0, ()), (2000.0, ()), (3000.0, ("nvlink",)), (4000.0, ("power",))):
        shelve(layout, made, left_out)
    steps = {step.step: step for step in gather_steps(layout, ())}

    assert {name: step.run_id for name, step in steps.items()} == {
        "power": "run-p3000",
        "nvlink": "run-n4000",
        "traced": "",
    }
    assert steps["traced"].archive == "b4000"
    assert [path.stem for path in find_archives(layout, ())] == ["b4000.tar", "b3000.tar"]
    assert len(gather_steps(layout, ("b1000", "b4000"))) == 2 * len(STEPS)


def test_what_was_always_left_out_is_an_open_gap(tmp_path: Path) -> None:
    shelve(Layout(tmp_path), 1000.0, ("nvlink",))
    document = documents(gather_steps(Layout(tmp_path), ()))["known_gaps.md"]

    assert "| nvlink | bandwidth of NVLink | open | skipped: not in --only | none," in document


def test_the_summary_has_every_step_figure_and_warning() -> None:
    """In Markdown and HTML, with foreign text as text."""
    warned = replace(
        result("run-p", {"speed": MetricResult(value=2.0, unit="m/s")}),
        warnings=("<b>no counters</b>",),
    )
    outcome = StepOutcome(step="power", optional=False, state=StepState.PASSED, run_id="run-p")
    report = SuiteReport(
        suite=Suite(name="b200x8", source="s", steps=STEPS[:1]),
        run_id="b1",
        cluster="b200x8",
        outcomes=(outcome,),
        results={"power": warned},
        ended=1000.0,
    )
    markdown, page = suite_markdown(report), suite_html(report)

    assert "| power | power | core | passed |" in markdown
    assert "| power | speed | 2 m/s |" in markdown
    assert "- power: &lt;b&gt;no counters&lt;/b&gt;" in markdown
    assert "&lt;b&gt;no counters&lt;/b&gt;" in page
    assert 'href="./runs/run-p/report.html"' in page
    assert report_object(report, None)["warnings"] == ["power: <b>no counters</b>"]
    removed = replace(report, results={})
    assert list(removed.warnings()) == ["power: run run-p was removed, and is in no archive"]


def test_archives_of_other_kinds_are_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.tar.gz"
    write_archive(other, "migration", [Member("result.json", b"{}")], made=1.0, about={})
    broken = tmp_path / "broken.tar.gz"
    write_archive(broken, "suite", [Member("result.json", b"[1]")], made=1.0, about={})

    with pytest.raises(UsageError, match="of kind 'migration'"):
        read_steps_of(other)
    with pytest.raises(UsageError, match="cannot be read"):
        read_steps_of(broken)


def test_without_figures_a_document_says_so(tmp_path: Path) -> None:
    steps = [replace(step, result=None) for step in read_steps_of(archive(tmp_path))]
    made = documents(steps)

    assert "no archived run measured power" in made["power_efficiency_baselines.md"]
    assert "no archived run reported figures" in made["results.md"]
