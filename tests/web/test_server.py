"""The real server over real connections: who is answered, what is never said, who is cut off."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.nightly.due_times import past_nights
from orchestrator.adapters.nightly.schedule_store import (
    append_record,
    nightly_folder,
    save_schedule,
)
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.web import access
from orchestrator.adapters.web.settings import PageSettings
from orchestrator.core.base.codec import to_json
from orchestrator.core.nightly.nights import NightRecord, RecordKind
from orchestrator.core.nightly.schedule import Schedule
from tests.cli.runs_on_disk import begin, finished
from tests.core.world import request
from tests.history.made_runs import KEY, make_entry
from tests.hosts.running import wait_until
from tests.time_limits import scaled
from tests.web.served import Served, serve

pytestmark = pytest.mark.processes

TOKEN = "a token that only this test has"
SETTINGS = PageSettings(token=TOKEN)
HOSTILE = '"><script>alert(1)</script>\x1b]0;title\x07\u202etxt'
SECRET = "the value of a secret variable"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is over, a live one with hostile names, and one that only the history knows."""
    home = tmp_path_factory.mktemp("served") / "home"
    finished(home)
    asked = request("a")
    asked = replace(asked, token=SECRET, cluster=replace(asked.cluster, name=HOSTILE))
    live = begin(home, "live")
    live.request.write_text(json.dumps(to_json(asked)))
    live.node_logs("a").mkdir()
    live.log("a", "rank-0.out").write_text(HOSTILE + "\n")
    key = replace(KEY, workload=HOSTILE)
    open_history(Layout(home)).record_run(make_entry("gone", 100.0, key=key, speed=5.0))
    _add_schedule(Layout(home), time.time())
    return home


def _add_schedule(layout: Layout, now: float) -> None:
    """One whose latest night failed, and the one before it is missing."""
    folder = nightly_folder(layout, "acceptance")
    schedule = Schedule(
        name="acceptance",
        cluster="c",
        workload="w",
        at="0 0 * * *",
        zone="UTC",
        since=now - 5 * 86400,
    )
    save_schedule(folder, schedule)
    (*_, latest) = (each for each in past_nights(schedule, now) if each.due <= now)
    begun = NightRecord(kind=RecordKind.STARTED, night=latest.night, at=latest.due, run_id="r1")
    append_record(folder, begun)
    ended = replace(begun, kind=RecordKind.FINISHED, status="failed", reason=HOSTILE)
    append_record(folder, ended)


@pytest.fixture(scope="module")
def served(home: Path) -> Iterator[Served]:
    with serve(home) as served:
        yield served


@pytest.fixture(scope="module")
def guarded(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One with a token, which may stop runs."""
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(TOKEN)
    file.chmod(0o600)
    with serve(home, "--token-file", str(file), "--allow-stop") as served:
        yield served


def ask(
    served: Served,
    path: str,
    *,
    method: str = "GET",
    form: dict[str, str] | None = None,
    **headers: str,
) -> tuple[int, http.client.HTTPMessage, str]:
    """Status, headers and text of an answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    link = http.client.HTTPConnection("127.0.0.1", served.port, timeout=scaled(30))
    try:
        link.request(method, path, urlencode(form) if form is not None else None, named)
        answer = link.getresponse()
        return answer.status, answer.headers, answer.read().decode()
    finally:
        link.close()


PAGES = [
    "/",
    "/nodes",
    "/nights",
    "/trends",
    "/compare",
    "/suites",
    "/runs/r1",
    "/runs/live",
    "/runs/gone",
]


@pytest.mark.parametrize("path", PAGES)
def test_pages_hold_no_markup_of_runs_and_no_secret(served: Served, path: str) -> None:
    status, headers, text = ask(served, path)

    assert status == 200
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert text.count("<script") == 1
    assert not re.search("[\x00-\x08\x1b\x7f\u202e]", text)
    assert SECRET not in text


def test_hostile_text_is_shown(served: Served) -> None:
    """It is not lost either."""
    assert "&lt;script&gt;alert(1)" in ask(served, "/runs/live")[2]
    assert "&lt;script&gt;alert(1)" in ask(served, "/runs/gone")[2]
    assert "&lt;script&gt;alert(1)" in ask(served, "/")[2]
    assert "&lt;script&gt;" in ask(served, f"/?{urlencode({'q': HOSTILE})}")[2]


def test_nights_are_a_calendar(served: Served) -> None:
    text = ask(served, "/nights")[2]
    failed = re.findall(r'<td class="day bad".*?</td>', text, re.DOTALL)

    assert len(failed) == 1
    assert 'href="/runs/r1"' in failed[0]
    assert "failed" in failed[0]
    assert "&lt;script&gt;" in failed[0]
    assert text.count('<td class="day missing"') >= 1


@pytest.mark.parametrize(
    "path", ["/runs/..%2f..%2fetc%2fpasswd", "/runs/none", "/runs/%00", "/static/..%2fapp.py", "/x"]
)
def test_what_does_not_exist_is_said(served: Served, path: str) -> None:
    assert ask(served, path)[0] == 404


def test_names_of_others_are_refused(served: Served) -> None:
    assert ask(served, "/", Host="evil.example")[0] == 421
    assert ask(served, "/events", Host="evil.example:80")[0] == 421


def test_nothing_is_changed_without_a_token(served: Served) -> None:
    origin = f"http://127.0.0.1:{served.port}"

    assert ask(served, "/runs/r1/stop", method="POST", form={}, Origin=origin)[0] == 404
    assert "Stop this run" not in ask(served, "/runs/r1")[2]
    assert ask(served, "/", method="DELETE")[0] in {403, 405}


def test_nothing_is_shown_without_the_token(guarded: Served) -> None:
    for path in [*PAGES, "/metrics", "/events", "/runs/r1/events"]:
        assert ask(guarded, path)[0] == 401, path
    status, headers, text = ask(guarded, "/runs/r1", Accept="text/html")

    assert (status, headers["Location"]) == (303, "/login?next=/runs/r1")
    assert "r1" not in text
    assert ask(guarded, "/static/page.css")[0] == 200


def test_the_token_opens_the_page_and_stops_runs(guarded: Served, home: Path) -> None:
    """With a browser's cookie, the form's key, and from the page itself alone."""
    origin = f"http://127.0.0.1:{guarded.port}"
    form = {"token": TOKEN, "next": "//evil.example"}
    status, headers, _ = ask(guarded, "/login", method="POST", form=form, Origin=origin)
    cookie = headers["Set-Cookie"]

    assert (status, headers["Location"]) == (303, "/")
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    session = cookie.partition(";")[0]
    live = ask(guarded, "/runs/live", Cookie=session)[2]
    assert f'value="{access.form_key(SETTINGS, "/runs/live/stop")}"' in live
    assert "Stop this run" not in ask(guarded, "/runs/r1", Cookie=session)[2], "it is over"
    form = {"key": access.form_key(SETTINGS, "/runs/r1/stop")}
    asked = {"Cookie": session, "Origin": origin}
    stop = "/runs/r1/stop"

    assert ask(guarded, stop, method="POST", form={"key": "x"}, **asked)[0] == 403
    foreign = {"Cookie": session, "Origin": "http://evil.example"}
    assert ask(guarded, stop, method="POST", form=form, **foreign)[0] == 403
    assert ask(guarded, stop, method="POST", form=form, Origin=origin)[0] == 401
    log = Layout(home).page_log
    assert not log.exists()
    assert ask(guarded, stop, method="POST", form=form, **asked)[0] == 303
    wait_until(
        "the command has answered", lambda: log.exists() and "already over" in log.read_text()
    )


def test_a_wrong_token_is_refused(guarded: Served) -> None:
    origin = f"http://127.0.0.1:{guarded.port}"
    answer = ask(guarded, "/login", method="POST", form={"token": "x" * 20}, Origin=origin)

    assert answer[0] == 401
    assert "That is not the token" in answer[2]


def test_a_program_reads_with_the_token(guarded: Served) -> None:
    assert ask(guarded, "/", Authorization=f"Bearer {TOKEN}")[0] == 200
    assert TOKEN not in ask(guarded, "/", Authorization=f"Bearer {TOKEN}")[2]


def test_prometheus_reads_metrics(served: Served) -> None:
    status, headers, text = ask(served, "/metrics", Accept="text/plain")

    assert (status, headers.get_content_type()) == (200, "text/plain")
    assert 'orchestrate_runs{state="running"} 1.0' in text


def test_events_follow_the_run(served: Served, home: Path) -> None:
    """After what a browser has seen, only what is new."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=scaled(30)) as link:
        link.sendall(b"GET /runs/live/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = link.makefile("rb")
        first = _message(received)
        with Layout(home).run("live").log("a", "rank-0.out").open("a") as log:
            log.write("another line\n")
        second = _message(received)

    assert first["anew"]
    assert set(first["parts"]) == {"head", "facts", "charts", "nodes"}
    assert not second["anew"]
    assert [re.sub("<[^>]+>", "", line) for line in second["lines"]] == ["a/0 another line"]


def _message(received: io.BufferedReader) -> dict[str, Any]:
    while True:
        line = received.readline()
        assert line, "the stream ended"
        if line.startswith(b"data: "):
            found: dict[str, Any] = json.loads(line[6:])
            return found


# ---- connections that do nothing -----------------------------------------------------------------

CHUNK = b"x" * 65536
CHUNKS = 2000


async def _answered_by(
    monkeypatch: pytest.MonkeyPatch, use: Callable[[int, list[int]], Awaitable[None]]
) -> list[int]:
    """How many chunks a server sent of an answer of 130 MB that ``use`` asks for, or not."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    from orchestrator.adapters.web.http import connections

    monkeypatch.setattr(connections, "HEAD_S", 0.3)
    monkeypatch.setattr(connections, "STUCK_S", 0.3)
    sent = [0]

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(CHUNKS):
            sent[0] += 1
            yield CHUNK
            await asyncio.sleep(0)  # where one that is cut off ends

    async def answer(request: Request) -> Response:
        del request
        return StreamingResponse(chunks())

    listener = socket.create_server(("127.0.0.1", 0))
    app = Starlette(routes=[Route("/", answer)])
    config = uvicorn.Config(
        app, http=connections.BoundedConnection, log_level="error", ws="none", lifespan="off"
    )
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve([listener]))
    try:
        await use(listener.getsockname()[1], sent)
    finally:
        server.should_exit = True
        await task
    return sent


def test_a_reader_that_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer stops where buffers are full, and its connection ends."""

    async def use(port: int, sent: list[int]) -> None:
        del sent
        # With this limit no more than two kilobytes are taken from the socket.
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(_write_on(writer), scaled(30))
        writer.close()

    sent = asyncio.run(_answered_by(monkeypatch, use))

    assert 0 < sent[0] < CHUNKS / 2


async def _write_on(writer: asyncio.StreamWriter) -> None:
    """Until the connection has ended."""
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def _read_to_end(reader: asyncio.StreamReader) -> bytes:
    """An end without a word, or with a reset."""
    try:
        return await reader.read()
    except ConnectionError:
        return b""


def test_a_request_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that does not begin, and one that does not end."""

    async def use(port: int, sent: list[int]) -> None:
        del sent
        for part in (b"", b"GET / HTTP/1.1\r\nHost: loc"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(part)
            assert await asyncio.wait_for(_read_to_end(reader), scaled(30)) == b""
            writer.close()

    assert asyncio.run(_answered_by(monkeypatch, use)) == [0]


def test_settings_are_not_shown() -> None:
    """Not where an error prints them, either."""
    settings = PageSettings(token=TOKEN)

    assert TOKEN not in f"{settings!r} {settings}"
    assert access.session_of(settings) not in repr(settings)
