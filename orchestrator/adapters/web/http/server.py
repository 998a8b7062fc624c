"""The server: one process, which reads files and answers browsers."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

import uvicorn

from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.web.http.app import make_app
from orchestrator.adapters.web.http.connections import BoundedConnection
from orchestrator.adapters.web.settings import PageSettings
from orchestrator.core.base.errors import UsageError

BACKLOG = 128
LEAVE_S = 1  # for answers that are under way when the server ends
REQUESTS = 480  # at once, of which most are streams


def serve_page(layout: Layout, settings: PageSettings, say: Callable[[str], None]) -> None:
    """Serve until a signal ends this process; ``say`` gets the address. Raises
    :class:`UsageError` for an address that cannot be listened on.
    """
    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    config = uvicorn.Config(
        make_app(layout, settings),
        http=BoundedConnection,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=REQUESTS,
        timeout_graceful_shutdown=LEAVE_S,
    )
    server = uvicorn.Server(config)
    say(f"http://{shown}:{port}/")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(server.serve(sockets=[listener]))


def _listen(settings: PageSettings) -> socket.socket:
    where = f"{settings.host}:{settings.port}"
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {where}",
            id="serve.listen",
            why=error.strerror or str(error),
            remedy="--listen HOST:PORT with another one; port 0 takes any that is free",
        ) from error
