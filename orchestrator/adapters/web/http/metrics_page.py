"""The metrics of this home, for Prometheus."""

from __future__ import annotations

import asyncio
import time

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from orchestrator.adapters.monitoring.monitor import Monitor
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.errors import UsageError


class MetricsPage:
    """Keeps what it has read, so that a scrape reads only what is new."""

    def __init__(self, layout: Layout) -> None:
        self._monitor = Monitor(layout)

    async def answer_scrape(self, request: Request) -> Response:
        """In the format that the scraper asks for."""
        accept = request.headers.get("accept", "")
        try:
            found = await asyncio.to_thread(self._monitor.render, time.time(), accept)
        except UsageError as error:
            raise HTTPException(503, f"{error.what}: {error.remedy}") from error
        return Response(found.content, headers={"Content-Type": found.content_type})
