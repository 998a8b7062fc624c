"""Before every request: may it be answered; after it: what the browser is allowed to do with it."""

from __future__ import annotations

from urllib.parse import quote

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.adapters.web import access
from orchestrator.adapters.web.settings import PageSettings

# Everything comes from this server, and no markup of a run can load, run or send anything.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """Refuses what :func:`access.refuse` refuses; sets the headers of every answer."""

    def __init__(self, app: ASGIApp, settings: PageSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = access.refuse(_request(scope), self._settings)
        answer = self._app if refusal is None else _answer(refusal, scope)
        await answer(scope, receive, send_guarded)


def _request(scope: Scope) -> access.Request:
    connection = HTTPConnection(scope)
    return access.Request(
        method=scope["method"],
        path=scope["path"],
        peer=connection.client.host if connection.client else "",
        headers=connection.headers,
    )


def _answer(refusal: access.AccessRefusal, scope: Scope) -> Response:
    accepted = HTTPConnection(scope).headers.get("accept", "")
    if refusal.login and scope["method"] == "GET" and "text/html" in accepted:
        return RedirectResponse(f"/login?next={quote(scope['path'], safe='/')}", 303)
    headers = {"WWW-Authenticate": "Bearer"} if refusal.status == 401 else {}
    return PlainTextResponse(refusal.reason + "\n", refusal.status, headers=headers)
