"""The list of runs, one run, its changes, and stopping it."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.history.store import HistoryStore
from orchestrator.adapters.report.drawing.charts import draw_charts
from orchestrator.adapters.store.background_command import start_in_background
from orchestrator.adapters.store.metric_series import Series
from orchestrator.adapters.store.run_list import RunSummary
from orchestrator.adapters.web import access
from orchestrator.adapters.web.http.event_stream import stream_feed
from orchestrator.adapters.web.http.forms import read_form
from orchestrator.adapters.web.runs.run_index import RunFilter
from orchestrator.adapters.web.runs.run_view import RunPageView
from orchestrator.adapters.web.site import Site
from orchestrator.core.base.errors import OrchestrateError


class RunPages:
    """Handlers of requests."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def list_runs(self, request: Request) -> Response:
        """Runs that match what was asked for, a page of them."""
        await self._site.refresh()
        index, asked = self._site.index, request.query_params
        chosen = RunFilter(
            state=asked.get("state", ""),
            cluster=asked.get("cluster", ""),
            workload=asked.get("workload", ""),
            text=asked.get("q", "")[:200],
        )
        number = asked.get("page", "1")
        found = index.page(chosen, int(number) if number.isdecimal() and len(number) < 8 else 1)
        text = self._site.rendering.page(
            "runs",
            page=found,
            chosen=chosen,
            choices={name: index.choices(name) for name in ("state", "cluster", "workload")},
            live=len(index.live),
            trouble=index.trouble,
            cursor=str(self._site.lists.cursor),
        )
        return HTMLResponse(text)

    async def watch_lists(self, request: Request) -> Response:
        """That a list is another one now, as server-sent events."""
        return stream_feed(request, self._site.lists, self._site.streams, nullcontext())

    async def show_run(self, request: Request) -> Response:
        """A run from its folder, or what the history remembers of it."""
        run_id = request.path_params["run"]
        folder = self._site.find_folder(run_id)
        if folder is None:
            return await asyncio.to_thread(self._show_remembered, run_id)
        live = await self._site.live.open(folder)
        feed = live.feed
        settings, action = self._site.settings, f"/runs/{run_id}/stop"
        stops = settings.allow_stop and not live.over
        text = self._site.rendering.page(
            "run",
            run_id=run_id,
            parts=feed.parts,
            lines=feed.lines,
            cursor=str(feed.cursor),
            live=True,
            stop=action if stops else "",
            key=access.form_key(settings, action) if stops else "",
        )
        return HTMLResponse(text)

    async def watch_run(self, request: Request) -> Response:
        """Changes of a run's page as server-sent events."""
        folder = self._site.find_folder(request.path_params["run"])
        if folder is None:
            raise HTTPException(404, "no such run")
        live = await self._site.live.open(folder)
        if not self._site.live.follows(live):
            raise HTTPException(503, "too many runs are read", headers={"Retry-After": "10"})
        return stream_feed(request, live.feed, self._site.streams, live.reading())

    async def stop_run(self, request: Request) -> Response:
        """Have ``orchestrate stop`` do it, as a process of its own."""
        run_id, settings = request.path_params["run"], self._site.settings
        folder = self._site.find_folder(run_id)
        if not settings.allow_stop or folder is None:
            raise HTTPException(404, "no such run, or runs are not stopped from here")
        form = await read_form(request)
        if not access.is_form_key(form.get("key", ""), settings, f"/runs/{run_id}/stop"):
            raise HTTPException(403, "the form is not ours, or an old one: load the page again")
        layout = self._site.layout
        await asyncio.to_thread(
            start_in_background, layout, ["stop", folder.run_id], layout.page_log
        )
        return RedirectResponse(f"/runs/{folder.run_id}", 303)

    def _show_remembered(self, run_id: str) -> Response:
        try:
            store = open_history(self._site.layout)
            view = _remembered_view(store, run_id)
        except (OSError, OrchestrateError) as error:
            raise HTTPException(503, f"history not read: {error}") from error
        if view is None:
            raise HTTPException(404, "no such run")
        text = self._site.rendering.page(
            "run",
            run_id=run_id,
            parts=self._site.rendering.run_parts(view),
            lines=[],
            cursor="",
            live=False,
            stop="",
            key="",
        )
        return HTMLResponse(text)


def _remembered_view(store: HistoryStore, run_id: str) -> RunPageView | None:
    """A run whose folder was removed."""
    records = [run for run in store.find_runs(run_id) if run.run_id == run_id]
    result = store.read_result(run_id) if records else None
    if result is None:
        return None
    record = records[0]
    series = [
        Series(name, record.figures[name].unit if name in record.figures else "", "", 0, points)
        for name, points in sorted(store.read_curves(run_id).items())
    ]
    summary = RunSummary(
        run_id=run_id,
        state=record.status.value,
        cluster=record.cluster,
        workload=record.workload,
        started=record.started,
        seconds=record.finished - record.started,
        exit_code=int(result.exit_code),
        cleaned=True,
    )
    return RunPageView(summary=summary, result=result, charts=draw_charts(series))
