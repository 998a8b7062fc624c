"""The figures of a schedule's nights, read from the history, and what detection says of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from statistics import median

from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.nightly.schedule_store import (
    NightlyFolder,
    append_change,
    read_acknowledged,
    read_changes,
    read_records,
)
from orchestrator.adapters.store.atomic_files import write_json
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.suite.suite_folder import SuiteFolder, read_steps
from orchestrator.core.detection.maximum_null import MAX_NIGHTS
from orchestrator.core.detection.night_series import (
    FigureFinding,
    FigureState,
    NightFigure,
    NightSeries,
)
from orchestrator.core.detection.night_verdict import judge_night, known_changes
from orchestrator.core.history.run_record import RunFigure, RunRecord
from orchestrator.core.model.workload import Direction
from orchestrator.core.nightly.nights import NightRecord, RecordKind
from orchestrator.core.verdict.result import Status

# What was run is what a schedule measures: another version is a suspect, not another series.
NOT_COMPARED = "workload_version"


def judge_figures(
    layout: Layout, folder: NightlyFolder, night: str, *, last: bool
) -> tuple[FigureFinding, ...]:
    """What ``night`` says of every figure that the schedule's runs reported.

    A finding that asks for another measurement is kept only when that was the ``last``. Raises
    ``OrchestrateError``, ``OSError``.
    """
    series = night_series(layout, read_records(folder))
    findings = judge_night(
        series, night, known=read_changes(folder), acknowledged=read_acknowledged(folder)
    )
    if last or not measures_again(findings):
        for change in known_changes(findings):
            append_change(folder, change)
        write_json(folder.findings, {"night": night, "findings": [_plain(f) for f in findings]})
    return findings


def measures_again(findings: Iterable[FigureFinding]) -> bool:
    """Whether a figure is suspicious that no one has accepted."""
    return any(
        finding.state is FigureState.SUSPICIOUS and finding.acknowledged is None
        for finding in findings
    )


def night_series(layout: Layout, records: Sequence[NightRecord]) -> tuple[NightSeries, ...]:
    """One series for each figure, oldest night first; those of a suite are called ``step.figure``.
    A night that was measured several times has the median of its runs: never the best of them.
    """
    store = open_history(layout)
    runs: dict[str, dict[str, list[RunRecord]]] = {}
    finished = [each for each in records if each.kind is RecordKind.FINISHED]
    for record in finished[-2 * MAX_NIGHTS :]:
        for step, run_id in _run_ids(layout, record.run_id).items():
            found = [run for run in store.find_runs(run_id) if run.run_id == run_id]
            runs.setdefault(step, {}).setdefault(record.night, []).extend(found)
    return tuple(series for step in sorted(runs) for series in _series_of_step(step, runs[step]))


def _run_ids(layout: Layout, night_run: str) -> dict[str, str]:
    """The runs of a night by step of its suite; without a suite the one run, under no name."""
    steps = read_steps(SuiteFolder(layout.suites / night_run))
    return {each.step: each.run_id for each in steps if each.run_id} or {"": night_run}


def _series_of_step(step: str, runs: Mapping[str, Sequence[RunRecord]]) -> Iterator[NightSeries]:
    names = {name for several in runs.values() for run in several for name in run.figures}
    for name in sorted(names):
        series = _series(name, runs)
        yield replace(series, name=f"{step}.{name}") if step else series


def _series(name: str, runs: Mapping[str, Sequence[RunRecord]]) -> NightSeries:
    figures = [
        run.figures[name] for night in sorted(runs) for run in runs[night] if name in run.figures
    ]
    declared = figures[-1] if figures else RunFigure(value=None)
    nights = tuple(_night_figure(name, night, runs[night]) for night in sorted(runs))
    direction = next(
        (f.direction for f in reversed(figures) if f.direction is not Direction.INFO),
        declared.direction,
    )
    return NightSeries(name=name, unit=declared.unit, direction=direction, nights=nights)


def _night_figure(name: str, night: str, runs: Sequence[RunRecord]) -> NightFigure:
    good = [run for run in runs if run.status is Status.SUCCEEDED]
    figures = [run.figures[name] for run in good if name in run.figures]
    values = [f.value for f in figures if f.measured and f.value is not None]
    shown = good[-1] if good else (runs[-1] if runs else None)
    ended = shown.status.value if shown is not None else "not in the history"
    return NightFigure(
        night=night,
        value=median(values) if values else None,
        invalid="" if good else f"the run was {ended}",
        key=_key(shown) if shown is not None else {},
        code=(shown.commit or shown.code) if shown is not None else "",
        run_id=shown.run_id if shown is not None else "",
    )


def _key(run: RunRecord) -> dict[str, str]:
    return {part: value for part, value in run.key.as_mapping().items() if part != NOT_COMPARED}


def _plain(finding: FigureFinding) -> dict[str, object]:
    data = asdict(finding)
    value = finding.value
    if value is not None and value - value != 0:  # NaN and infinities have no place in JSON
        data["value"] = None
    return {**data, "state": finding.state.value}
