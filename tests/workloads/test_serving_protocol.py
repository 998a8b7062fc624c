"""The built-in engine over HTTP: OpenAI's answers, its errors, and clients that misbehave."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrate_serving import Engine, EngineSettings, start_engines
from orchestrate_serving.builtin import http_server, tiny_model
from orchestrate_serving.builtin.http_server import Handler, HttpRequest, Reply, serve_connection
from orchestrate_serving.builtin.protocol import CHAT, COMPLETIONS, BadRequest, parse_request
from tests.time_limits import budget, scaled

CONTEXT = 4096
SHORT = {"prompt": "the river and the harbour", "max_tokens": 8, "temperature": 0}
TALK = {"messages": [{"role": "user", "content": "the river"}], "max_tokens": 8, "temperature": 0}
pytestmark = [
    pytest.mark.processes,
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of the libraries, about one another
]


@pytest.fixture(scope="module")
def engine(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """One for all tests here, with a single slot."""
    asked = EngineSettings(
        model=str(tiny_model.ensure_model(0, str(cache))),
        arguments=f"--device cpu --threads 1 --slots 1 --context {CONTEXT}",
        ready_s=scaled(60),
        stop_s=scaled(5),
    )
    with start_engines(asked, tmp_path_factory.mktemp("engine")) as (one,):
        yield one


def connect(engine: Engine) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(engine.base_url.removeprefix("http://"), timeout=budget(30))


def post(engine: Engine, path: str, body: bytes | dict[str, Any]) -> tuple[int, Any]:
    """The status of the answer and its JSON."""
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    with closing(connect(engine)) as connection:
        connection.request("POST", path, sent)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def events(engine: Engine, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a stream, which ends as it should."""
    with closing(connect(engine)) as connection:
        connection.request("POST", path, json.dumps({**body, "stream": True}))
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.getheader("Content-Type") == "text/event-stream"
        *blocks, done, end = answer.read().split(b"\n\n")
    assert (done, end) == (b"data: [DONE]", b"")
    assert all(block.startswith(b"data: {") for block in blocks)
    return [json.loads(block.removeprefix(b"data: ")) for block in blocks]


def refused(engine: Engine, body: bytes | dict[str, Any], path: str = COMPLETIONS) -> str:
    """The status and the message of an error as OpenAI's clients read it."""
    status, answer = post(engine, path, body)
    error = answer["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", status)
    return f"{status} {error['message']}"


@pytest.mark.parametrize("path, body", [(COMPLETIONS, SHORT), (CHAT, TALK)])
def test_a_stream_says_what_the_whole_answer_says(
    engine: Engine, path: str, body: dict[str, Any]
) -> None:
    _, whole = post(engine, path, body)
    *parts, last = events(engine, path, {**body, "stream_options": {"include_usage": True}})
    (choice,) = whole["choices"]
    said = [part["choices"][0] for part in parts]
    if path == CHAT:
        assert said[0]["delta"]["role"] == choice["message"]["role"] == "assistant"
        text, pieces = choice["message"]["content"], [one["delta"]["content"] for one in said]
    else:
        text, pieces = choice["text"], [one["text"] for one in said]
    assert "".join(pieces) == text
    assert [one["finish_reason"] for one in said] == [None] * (len(said) - 1) + [
        choice["finish_reason"]
    ]
    assert last["choices"] == []
    assert last["usage"] == whole["usage"]
    usage = whole["usage"]
    assert 0 < usage["completion_tokens"] <= 8
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_usage_comes_in_a_stream_only_if_asked_for(engine: Engine) -> None:
    assert not [event for event in events(engine, COMPLETIONS, SHORT) if "usage" in event]


@pytest.mark.parametrize(
    "body, words",
    [
        (b"{", "400 the body is no JSON"),
        (b"[" * 200_000, "400 the body is no JSON"),
        (b"[]", "400 the body is no JSON object"),
        ({**SHORT, "model": "gpt-5"}, '404 the model "gpt-5" is not served here'),
        ({**SHORT, "model": ["m"]}, '404 the model ["m"] is not served here'),
        ({}, "400 prompt is neither one text nor one list of tokens"),
        ({**SHORT, "prompt": ["a", "b"]}, "400 prompt is neither"),
        ({**SHORT, "prompt": [1, 10**30]}, "400 prompt names a token that the model does not"),
        (b'{"prompt": "\\ud800"}', "400 the prompt is no text of Unicode"),
        (
            {**SHORT, "prompt": "a " * 5000},
            "400 and max_tokens 8 are more than the context of 4096",
        ),
        ({**SHORT, "max_tokens": 0}, "400 max_tokens is no number from 1 to 1048576"),
        ({**SHORT, "max_tokens": 10**400}, "400 max_tokens is no number from 1 to"),
        (b'{"prompt": "a", "temperature": NaN}', "400 temperature is no number from 0 to 100"),
        ({**SHORT, "stream": "yes"}, "400 stream is neither true nor false"),
        ({**SHORT, "n": 2}, "400 n = 2 is not supported"),
        ({**SHORT, "stop": ["."]}, '400 stop = ["."] is not supported'),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused(
    engine: Engine, body: bytes | dict[str, Any], words: str
) -> None:
    said = refused(engine, body)
    assert said.startswith(words[:4])
    assert words[4:] in said


def test_paths_methods_and_roles_are_checked(engine: Engine) -> None:
    assert refused(engine, {}, "/v1/embeddings").startswith("404 there is no /v1/embeddings")
    assert refused(engine, {}, "/v1/models").startswith("405 /v1/models takes GET, not POST")
    strange = {"messages": [{"role": "oracle", "content": "?"}]}
    assert "unknown role oracle" in refused(engine, strange, CHAT)


def test_a_client_that_leaves_in_mid_stream_frees_its_slot(engine: Engine) -> None:
    """The only slot: the next answer comes long before the first would have been complete."""
    most = CONTEXT - 100
    asked = {**SHORT, "max_tokens": most, "ignore_eos": True, "stream": True}
    with closing(connect(engine)) as leaving:
        leaving.request("POST", COMPLETIONS, json.dumps(asked))
        answer = leaving.getresponse()
        began = time.monotonic()
        for _ in range(60):  # an event is a line and an empty one
            answer.readline()
        token_s = (time.monotonic() - began) / 30
    began = time.monotonic()
    assert post(engine, COMPLETIONS, SHORT)[0] == 200
    assert time.monotonic() - began < token_s * most / 3


def test_a_slow_client_delays_nobody(engine: Engine) -> None:
    """A request that comes in pieces is answered when it is whole; others meanwhile."""
    host, _, port = engine.base_url.removeprefix("http://").partition(":")
    body = json.dumps(SHORT).encode()
    head = f"POST {COMPLETIONS} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with socket.create_connection((host, int(port)), timeout=budget(30)) as slow:
        for piece in (head[:10], head[10:], body[:5]):
            slow.sendall(piece)
            assert post(engine, COMPLETIONS, SHORT)[0] == 200
        slow.sendall(body[5:])
        assert slow.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_chat_has_as_many_tokens_as_fit_unless_it_says_otherwise() -> None:
    asked = parse_request(CHAT, json.dumps({"messages": TALK["messages"]}).encode(), "m")
    assert asked.max_tokens is None
    assert parse_request(COMPLETIONS, b'{"prompt": "a"}', "m").max_tokens == 16
    with pytest.raises(BadRequest, match="seed is not supported"):
        parse_request(COMPLETIONS, b'{"prompt": "a", "seed": 1}', "m")


async def echo(request: HttpRequest, reply: Reply) -> None:
    reply.whole(200, request.body, "text/plain")


@asynccontextmanager
async def connected(
    handler: Handler = echo,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server of this process."""
    serve = partial(serve_connection, handler)
    listener = await asyncio.start_server(serve, "127.0.0.1", 0, limit=http_server.MAX_HEAD_BYTES)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.timeout(scaled(20)):
                yield reader, writer
        finally:
            writer.transport.abort()


@pytest.mark.parametrize(
    "sent, status",
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: \xb2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"GET / HTTP/1.1\r\nx: " + b"y" * http_server.MAX_HEAD_BYTES + b"\r\n\r\n", 431),
    ],
)
async def test_bytes_that_are_no_request_are_answered_and_the_connection_closed(
    sent: bytes, status: int
) -> None:
    async with connected() as (reader, writer):
        writer.write(sent)
        answer = await reader.read()
    assert answer.startswith(b"HTTP/1.1 %d " % status)


async def test_requests_of_one_connection_are_answered_in_turn() -> None:
    async with connected() as (reader, writer):
        ask = b"POST / HTTP/1.1\r\nContent-Length: 3\r\n%b\r\n%b"
        writer.write(ask % (b"", b"one") + ask % (b"Connection: close\r\n", b"two"))
        answer = await reader.read()
    assert answer.count(b"HTTP/1.1 200 OK") == 2
    assert answer.index(b"one") < answer.index(b"two")


async def test_a_request_that_is_never_complete_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "READ_S", 0.05)
    async with connected() as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nContent-Le")
        assert await reader.read() == b""


async def test_a_client_that_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for it is bounded."""
    monkeypatch.setattr(http_server, "MAX_BACKLOG_BYTES", 1 << 16)
    given_up = asyncio.Event()

    async def pour(_: HttpRequest, reply: Reply) -> None:
        reply.begin_events()
        while not reply.gone:
            reply.event(bytes(1 << 14))
            await asyncio.sleep(0)
        reply.abort()
        given_up.set()

    async with connected(pour) as (_, writer):
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await given_up.wait()
