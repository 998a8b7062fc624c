"""The status page as text, Markdown, HTML or JSON-ready data: the same tables in each."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from orchestrator.adapters.nightly.night_trends import draw_night_trend
from orchestrator.adapters.nightly.status_page import FigureTrend, ScheduleStatus, StatusPage
from orchestrator.adapters.report.html_report import render_template
from orchestrator.adapters.store.run_list import RunSummary
from orchestrator.core.base.figures import format_figure, sparkline
from orchestrator.core.history.run_record import RunRecord
from orchestrator.view.terminal.text import brief_text, format_seconds

MAX_CELL = 120


@dataclass(frozen=True, slots=True)
class StatusTable:
    """One table of the page."""

    title: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def status_tables(page: StatusPage) -> tuple[StatusTable, ...]:
    """The tables that have rows."""
    tables = (
        StatusTable(
            "Running",
            ("run", "state", "cluster", "workload", "for"),
            tuple(_running(page.now, run) for run in page.runs if run.seconds is None),
        ),
        StatusTable(
            "Nights",
            ("schedule", "what", "night", "state", "took", "run", "next"),
            tuple(row for schedule in page.schedules for row in _nights(schedule)),
        ),
        StatusTable(
            "Figures of the last night",
            ("schedule", "figure", "night", "value", "last good", "change", "state", "trend"),
            tuple(_trend(trend) for trend in page.trends),
        ),
        StatusTable(
            "Latest runs",
            ("run", "state", "cluster", "workload", "took"),
            tuple(_finished(run) for run in reversed(page.runs) if run.seconds is not None),
        ),
        StatusTable(
            "Performance",
            ("run", "finished", "figure", "value"),
            tuple(row for report in page.reports for row in _report(report)),
        ),
    )
    return tuple(table for table in tables if table.rows)


def status_markdown(page: StatusPage) -> str:
    """For people who keep a status file."""
    lines = [f"# orchestrate: {_headline(page)}", "", f"{_moment(page.now, 'UTC')} UTC", ""]
    lines += [f"- **{_cell(alarm)}**" for alarm in (*page.alarms, *page.troubles)]
    for table in status_tables(page):
        lines += ["", f"## {table.title}", "", f"| {' | '.join(table.headings)} |"]
        lines.append("|" + "---|" * len(table.headings))
        lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in table.rows]
    return "\n".join(lines) + "\n"


def status_plain(page: StatusPage) -> str:
    """For a terminal."""
    lines = [f"{_headline(page)}; {_moment(page.now, 'UTC')} UTC"]
    lines += [f"! {brief_text(alarm, 300)}" for alarm in (*page.alarms, *page.troubles)]
    for table in status_tables(page):
        rows = [tuple(brief_text(cell, MAX_CELL) for cell in row) for row in table.rows]
        widths = [max(map(len, column)) for column in zip(table.headings, *rows, strict=True)]
        lines += ["", table.title]
        for row in (table.headings, *rows):
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  ".join(cells).rstrip())
    return "\n".join(lines) + "\n"


def status_html(page: StatusPage, refresh_s: float | None = None) -> str:
    """One file without scripts. ``refresh_s``: how often a browser reads it again."""
    return render_template(
        "status.html.jinja",
        headline=_headline(page),
        moment=_moment(page.now, "UTC"),
        alarms=(*page.alarms, *page.troubles),
        tables=status_tables(page),
        trends=[chart for trend in page.trends if (chart := draw_night_trend(trend)) is not None],
        refresh_s=refresh_s,
    )


def status_object(page: StatusPage) -> dict[str, Any]:
    """For machines."""
    return {
        "now": page.now,
        "alarms": list(page.alarms),
        "troubles": list(page.troubles),
        "schedules": [
            {**asdict(each), "nights": [{**asdict(n), "alarms": n.alarms} for n in each.nights]}
            for each in page.schedules
        ],
        "figures": [{**asdict(trend), "change": trend.change} for trend in page.trends],
        "runs": [asdict(run) for run in page.runs],
    }


def _headline(page: StatusPage) -> str:
    running = sum(run.state == "running" for run in page.runs)
    return f"{running} running, {len(page.alarms) + len(page.troubles)} alarms"


def _running(now: float, run: RunSummary) -> tuple[str, ...]:
    took = format_seconds(now - run.started) if run.started is not None else ""
    return (run.run_id, run.state, run.cluster, run.workload, took)


def _finished(run: RunSummary) -> tuple[str, ...]:
    took = format_seconds(run.seconds) if run.seconds is not None else ""
    return (run.run_id, run.state, run.cluster, run.workload, took)


def _nights(schedule: ScheduleStatus) -> Sequence[tuple[str, ...]]:
    following = _moment(schedule.next_due, schedule.zone)
    if not schedule.nights:
        return [(schedule.name, schedule.what, "", "none was due yet", "", "", following)]
    rows: list[tuple[str, ...]] = []
    for night in reversed(schedule.nights):
        state = f"{night.state.value}, late" if night.is_late else night.state.value
        took = ""
        if night.started is not None and night.finished is not None:
            took = format_seconds(night.finished - night.started)
        run = night.run_ids[-1] if night.run_ids else ""
        first = (schedule.name, schedule.what) if not rows else ("", "")
        rows.append((*first, night.night, state, took, run, "" if rows else following))
    return rows


def _trend(trend: FigureTrend) -> tuple[str, ...]:
    value = "none" if trend.value is None else format_figure(trend.value, trend.unit)
    before = (
        ""
        if trend.before is None
        else f"{format_figure(trend.before, trend.unit)} {trend.last_good}"
    )
    change = "" if trend.change is None else f"{trend.change:+.1%}"
    line = sparkline(trend.trend) if len(trend.trend) > 1 else ""
    return (trend.schedule, trend.figure, trend.night, value, before, change, trend.state, line)


def _report(report: RunRecord) -> Sequence[tuple[str, ...]]:
    """The performance of one run, a line for each figure."""
    measured = [(name, f) for name, f in report.figures.items() if f.measured]
    finished = _moment(report.finished, "UTC")
    return [
        (report.run_id, finished, name, format_figure(f.value, f.unit))
        for name, f in measured
        if f.value is not None
    ]


def _moment(moment: float, zone: str) -> str:
    return f"{datetime.fromtimestamp(moment, UTC).astimezone(ZoneInfo(zone)):%Y-%m-%d %H:%M}"


def _cell(text: str) -> str:
    """Text of runs in a Markdown table: on one line, and nothing that Markdown would act on."""
    return (
        html.escape(brief_text(text, MAX_CELL), quote=False).replace("|", "\\|").replace("`", "'")
    )
