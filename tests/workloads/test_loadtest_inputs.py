"""What a load is made of, before any of it is sent: files of prompts, and the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest

from loadtest.base.job import Ask, Target
from loadtest.load import endpoint
from loadtest.load.endpoint import EndpointError, check_endpoint
from loadtest.load.prompts import InputError, read_prompts
from orchestrate_serving.failures import NO_API, UNREACHABLE
from tests.workloads.conftest import finish, node_folder
from tests.workloads.test_loadtest_runs import start

pytestmark = pytest.mark.processes
SHARED = [
    {
        "id": "a",
        "conversations": [{"from": "gpt", "value": "Hi"}, {"from": "human", "value": "é?"}],
    },
    {"id": "b", "conversations": []},
    {"id": "c", "conversations": [{"from": "user", "value": "why"}]},
]


def test_conversations_are_read_from_an_array_as_they_are_published(tmp_path: Path) -> None:
    path = tmp_path / "ShareGPT.json"
    path.write_bytes(b"\xef\xbb\xbf\n " + json.dumps(SHARED, indent=1).encode())
    assert read_prompts(path) == [Ask(text="é?"), Ask(text="why")]


def test_conversations_prompts_and_messages_may_stand_in_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    said = [{"role": "user", "content": [{"type": "text", "text": "a"}]}]
    lines = [SHARED[2], {"prompt": "p", "max_tokens": 3}, {"messages": said, "id": 9}]
    path.write_bytes(b"\r\n\r\n".join(json.dumps(line).encode() for line in lines))
    assert read_prompts(path) == [
        Ask(text="why"),
        Ask(text="p", output_tokens=3),
        Ask(messages=tuple(said)),
    ]


@pytest.mark.parametrize(
    "content, words",
    [
        (b'{"text": "a"}', "1: neither .*, but the keys 'text'"),
        (b'{"prompt": "a"}\n{"prompt": "b"', "2: not JSON"),
        (b'{"prompt": "a", "max_tokens": -1}', "1: max_tokens is -1"),
        (b'{"conversations": [{"from": "gpt", "value": "x"}]}', "1: neither"),
        (b'[{"prompt": "a"}, 5]', "entry 2 is no object, but int"),
        (b"[1, 2", "not JSON"),
        (b"[]", "no line with a request"),
        (b'"prompt"', "a JSON object is needed, found str"),
        (b"\xff\xfe{\0}\0", "1: not JSON"),
        (b"", "no line with a request"),
    ],
)
def test_odd_lines_are_refused_with_their_place(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as refused:
        read_prompts(path)
    assert str(refused.value).startswith(str(path))


def test_a_server_that_answers_otherwise_is_not_one_that_cannot_be_reached() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{other.server_port}/v1"
        with pytest.raises(EndpointError, match=r"is no OpenAI-compatible server: ") as refused:
            check_endpoint(url, "", "chat")
        assert "status 501" in str(refused.value)
        assert refused.value.id == NO_API
        other.shutdown()


class _Server(BaseHTTPRequestHandler):
    """Answers as its ``answers`` say: (path, status, headers), each once, else with a model; and
    each prompt with a token.
    """

    answers: ClassVar[list[tuple[str, int, dict[str, str]]]] = []
    prompts: ClassVar[list[str]] = []
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path, status, headers = self.answers.pop(0) if self.answers else (self.path, 200, {})
        assert self.path == path
        body = b'{"data": [{"id": "m"}]}' if status == 200 else b"{}"
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.prompts.append(asked["messages"][0]["content"])
        said = b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": "stop"}]}\n\n'
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "BUSY_S", 0.0)


@pytest.fixture
def asked() -> Iterator[str]:
    _Server.answers = []
    _Server.prompts = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "below, answers, words, id",
    [
        ("", [("/models", 404, {})], r"did you mean --set endpoint=\S+/v1\?", NO_API),
        ("/v1/chat/completions", [("/v1/chat/completions/models", 404, {})],
         r"did you mean --set endpoint=\S+/v1\?", NO_API),
        ("/v1", [("/v1/models", 401, {})], "--env OPENAI_API_KEY", NO_API),
        ("/v1", [("/v1/models", 308, {"Location": "https://b/v1"})],
         "sends on to 'https://b/v1'", NO_API),
        ("/v1", [("/v1/models", 503, {})] * 9, "is not ready after 0 s: .*503", UNREACHABLE),
    ],
)  # fmt: skip
def test_a_server_that_refuses_says_why_and_what_to_do(
    asked: str,
    below: str,
    answers: list[tuple[str, int, dict[str, str]]],
    words: str,
    id: str,
) -> None:
    _Server.answers = list(answers)
    with pytest.raises(EndpointError, match=words) as refused:
        check_endpoint(f"{asked}{below}", "", "chat")
    assert refused.value.id == id


@pytest.mark.parametrize("base", ["/v1", "/v1/", "/v1//"])
def test_a_server_that_loads_its_model_is_asked_again(asked: str, base: str) -> None:
    _Server.answers = [("/v1/models", 503, {"Retry-After": "0"})]
    assert check_endpoint(f"{asked}{base}", "m", "chat") == Target(url=f"{asked}/v1", model="m")


def test_generated_prompts_are_new_to_a_server_in_each_stage_and_run(
    asked: str, tmp_path: Path
) -> None:
    """Else a server that keeps prefixes would be faster the second time."""
    sweep = ("--arrival=sweep", "--rate=15", "--final-rate=30", "--steps=2", "--duration=1")
    for run in ("first", "second"):
        node, target = node_folder(tmp_path / run), Target(url=f"{asked}/v1", model="m")
        finish(start(node, target, *sweep, "--warmup=4"))
    prompts = _Server.prompts
    marks = [prompt.partition(" ")[0] for prompt in prompts]
    assert len(set(prompts)) == len(prompts) == 2 * (4 + 15 + 30)
    assert {len(mark) for mark in marks} == {10}
    assert {mark[:4] for mark in marks[: len(marks) // 2]} == {marks[0][:4]}
