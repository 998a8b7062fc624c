"""The application: which path is answered by which page."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.web import access
from orchestrator.adapters.web.http.forms import read_form
from orchestrator.adapters.web.http.guard import Guard
from orchestrator.adapters.web.http.metrics_page import MetricsPage
from orchestrator.adapters.web.http.overview_pages import OverviewPages
from orchestrator.adapters.web.http.run_pages import RunPages
from orchestrator.adapters.web.rendering import TYPES
from orchestrator.adapters.web.settings import PageSettings
from orchestrator.adapters.web.site import Site

WRONG_TOKEN_S = 1.0


def make_app(layout: Layout, settings: PageSettings) -> Starlette:
    """The page of the runs of ``layout``."""
    site = Site(layout, settings)
    runs, overview, entry = RunPages(site), OverviewPages(site), _Entry(site)
    routes = [
        Route("/", runs.list_runs),
        Route("/events", runs.watch_lists),
        Route("/runs/{run}", runs.show_run),
        Route("/runs/{run}/events", runs.watch_run),
        Route("/runs/{run}/stop", runs.stop_run, methods=["POST"]),
        Route("/nodes", overview.show_nodes),
        Route("/nights", overview.show_nights),
        Route("/trends", overview.show_trends),
        Route("/compare", overview.compare_runs),
        Route("/suites", overview.show_suites),
        Route("/metrics", MetricsPage(layout).answer_scrape),
        Route("/login", entry.show_login),
        Route("/login", entry.log_in, methods=["POST"]),
        Route("/static/{name}", entry.static_file),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(Guard, settings=settings)],
        exception_handlers={HTTPException: entry.explain},
        lifespan=lambda _: _watching(site),
    )


@contextlib.asynccontextmanager
async def _watching(site: Site) -> AsyncIterator[None]:
    """The list of runs is read before the first request, and watched until the server ends."""
    await site.refresh()
    watch = asyncio.create_task(site.watch_lists())
    try:
        yield
    finally:
        watch.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watch


class _Entry:
    """What is served before the token is known, and what is said where nothing is."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def show_login(self, request: Request) -> Response:
        """The form for the token."""
        return self._login_page(request.query_params.get("next", "/"), wrong=False)

    async def log_in(self, request: Request) -> Response:
        """The browser gets what it may keep in place of the token."""
        form, settings = await read_form(request), self._site.settings
        target = form.get("next", "/")
        if not access.is_token(form.get("token", ""), settings):
            await asyncio.sleep(WRONG_TOKEN_S)
            return self._login_page(target, wrong=True)
        answer = RedirectResponse(_own_path(target), 303)
        answer.set_cookie(
            access.COOKIE,
            access.session_of(settings),
            max_age=access.SESSION_S,
            httponly=True,
            samesite="strict",
            secure=request.headers.get("origin", "").startswith("https://"),
        )
        return answer

    async def static_file(self, request: Request) -> Response:
        """Style, script and icon; the version in their address changes with them."""
        name = request.path_params["name"]
        content = self._site.rendering.static.get(name)
        if content is None:
            raise HTTPException(404, "no such file")
        cached = {"Cache-Control": "public, max-age=31536000, immutable"}
        return Response(content, media_type=TYPES[name], headers=cached)

    async def explain(self, request: Request, error: Exception) -> Response:  # noqa: ARG002
        """Why there is no such page."""
        assert isinstance(error, HTTPException)
        text = self._site.rendering.page("problem", reason=error.detail)
        return HTMLResponse(text, error.status_code, headers=error.headers)

    def _login_page(self, target: str, *, wrong: bool) -> Response:
        text = self._site.rendering.page("login", target=_own_path(target), wrong=wrong)
        return HTMLResponse(text, 401 if wrong else 200)


def _own_path(target: str) -> str:
    """A path of this server, whatever was asked for."""
    own = target.startswith("/") and not target.startswith(("//", "/\\"))
    return target if own and target.isprintable() and target.isascii() else "/"
