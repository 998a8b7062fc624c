"""The figures of a schedule's nights, read from the history, and what detection says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import median

from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.history.store import HistoryStore
from orchestrator.adapters.nightly.schedule_store import (
    NightlyFolder,
    append_change,
    read_acknowledged,
    read_changes,
    read_records,
)
from orchestrator.adapters.store.atomic_files import write_json
from orchestrator.adapters.store.layout import Layout
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
    series = night_series(open_history(layout), read_records(folder))
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


def night_series(store: HistoryStore, records: Sequence[NightRecord]) -> tuple[NightSeries, ...]:
    """One series for each figure, oldest night first. A night that was measured several times has
    the median of its runs: never the best of them.
    """
    runs: dict[str, list[RunRecord]] = {}
    finished = [each for each in records if each.kind is RecordKind.FINISHED]
    for record in finished[-2 * MAX_NIGHTS :]:
        found = [r for r in store.find_runs(record.run_id) if r.run_id == record.run_id]
        runs.setdefault(record.night, []).extend(found)
    names = sorted({name for several in runs.values() for run in several for name in run.figures})
    return tuple(_series(name, runs) for name in names)


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
