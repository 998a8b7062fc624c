"""What is put together from many runs: nodes, nights, trends, and two runs side by side."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from zoneinfo import ZoneInfo

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from orchestrator.adapters.history.choose_runs import choose_pair, runs_for_noise
from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.nightly.night_trends import draw_night_trend
from orchestrator.adapters.nightly.status_page import ScheduleStatus, read_schedules
from orchestrator.adapters.report.comparison_report import comparison_charts
from orchestrator.adapters.report.drawing.charts import Chart
from orchestrator.adapters.report.drawing.trend_chart import TrendChart
from orchestrator.adapters.report.run_trends import run_trends
from orchestrator.adapters.web.overview.calendar import WEEKS, CalendarDay, night_weeks
from orchestrator.adapters.web.overview.suite_runs import list_suite_runs
from orchestrator.adapters.web.site import Site
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.history.comparing import ComparisonRules, RunsComparison, compare_groups
from orchestrator.core.history.run_record import RunQuery

OFFERED_RUNS = 100
MAX_NAME = 200


class OverviewPages:
    """Handlers of requests."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def show_nodes(self, request: Request) -> Response:  # noqa: ARG002 - a handler
        """Each node: its GPUs, who holds them, and what became of it in the latest runs."""
        return self._page("nodes", nodes=await self._site.node_rows())

    async def show_nights(self, request: Request) -> Response:  # noqa: ARG002 - a handler
        """Each schedule as a calendar, and the figures of its nights."""
        now = time.time()
        found = await asyncio.to_thread(
            read_schedules, self._site.layout, now=now, nights=7 * WEEKS
        )
        charts = [drawn for trend in found.trends if (drawn := draw_night_trend(trend))]
        weeks = {schedule.name: _weeks(schedule, now) for schedule in found.schedules}
        return self._page("nights", found=found, weeks=weeks, trends=charts)

    async def show_trends(self, request: Request) -> Response:
        """The figures of a workload on a cluster over its latest runs that are alike."""
        await self._site.refresh()
        runs = self._site.index.runs
        pairs = sorted({(run.workload, run.cluster) for run in runs if run.workload})
        asked = (request.query_params.get("workload", ""), request.query_params.get("cluster", ""))
        latest = next(((r.workload, r.cluster) for r in runs if r.workload), ("", ""))
        chosen = asked if asked in pairs else latest
        try:
            trends = await asyncio.to_thread(self._trends, *chosen)
            trouble = ""
        except (OSError, OrchestrateError) as error:
            trends, trouble = (), f"history not read: {error}"
        return self._page("trends", pairs=pairs, chosen=chosen, trends=trends, trouble=trouble)

    async def show_suites(self, request: Request) -> Response:  # noqa: ARG002 - a handler
        """The latest runs of suites with their steps."""
        runs = await asyncio.to_thread(list_suite_runs, self._site.layout)
        return self._page("suites", runs=runs)

    async def compare_runs(self, request: Request) -> Response:
        """Two runs, as `orchestrate compare` compares them."""
        await self._site.refresh()
        asked = request.query_params
        newer, older = (*asked.getlist("run"), "", "")[:2]  # as the list has them
        a, b = asked.get("a", older)[:MAX_NAME], asked.get("b", newer)[:MAX_NAME]
        found: RunsComparison | None = None
        charts: Sequence[Chart] = ()
        trouble = ""
        if a and b:
            try:
                found, charts = await asyncio.to_thread(self._compare, a, b)
            except (OSError, OrchestrateError) as error:
                trouble = str(error)
        known = [run.run_id for run in self._site.index.runs[:OFFERED_RUNS]]
        return self._page(
            "comparison_page", a=a, b=b, known=known, found=found, charts=charts, trouble=trouble
        )

    def _compare(self, a: str, b: str) -> tuple[RunsComparison, Sequence[Chart]]:
        store = open_history(self._site.layout)
        first, second = choose_pair(store, a, b)
        noise = runs_for_noise(store, first, second)
        found = compare_groups(first, second, noise, ComparisonRules())
        return found, comparison_charts(found, store)

    def _trends(self, workload: str, cluster: str) -> tuple[TrendChart, ...]:
        store = open_history(self._site.layout)
        latest = store.read_runs(RunQuery(workload=workload, cluster=cluster, limit=1))
        return run_trends(store, latest[0]) if latest else ()

    def _page(self, name: str, **values: object) -> Response:
        lists = self._site.lists.cursor
        return HTMLResponse(self._site.rendering.page(name, cursor=str(lists), **values))


def _weeks(schedule: ScheduleStatus, now: float) -> tuple[tuple[CalendarDay, ...], ...]:
    return night_weeks(schedule.nights, _today(now, schedule.zone))


def _today(now: float, zone: str) -> date:
    return datetime.fromtimestamp(now, UTC).astimezone(ZoneInfo(zone)).date()
