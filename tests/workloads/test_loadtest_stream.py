"""Streamed answers: whatever the cuts between the pieces, and whatever a server sends."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import isnan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.base.job import Ask, Job, Target
from loadtest.client.requests import RequestWriter
from loadtest.client.stream import MAX_EVENT_BYTES, MAX_HEAD_BYTES, Answer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def event(entry: object) -> bytes:
    return b"data: " + (entry if isinstance(entry, bytes) else json.dumps(entry).encode()) + b"\n\n"


def delta(**content: str) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": content, "finish_reason": None}]}


ROLE = event(delta(role="assistant", content=""))
WORDS = [event(delta(content=f" word{number}")) for number in range(4)]
STOP = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
USAGE = event({"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 9}})
DONE = event(b"[DONE]")
STREAM = [ROLE, *WORDS, STOP, USAGE, DONE]


def chunked(parts: Sequence[bytes]) -> bytes:
    return b"".join(b"%x;x=y\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def feed(content: bytes, cuts: Sequence[int] = ()) -> Answer:
    answer = Answer()
    places = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    for number, (start, end) in enumerate(pairwise(places)):
        answer.feed(content[start:end], float(number))
    return answer


def outcome(answer: Answer) -> tuple[object, ...]:
    tokens = answer.output_tokens, answer.prompt_tokens
    return answer.over, answer.failure, len(answer.chunks_s), tokens, answer.closes


cuts = st.lists(st.integers(0, 10**6), max_size=12)


@given(cuts)
def test_cuts_change_nothing(places: list[int]) -> None:
    answer = feed(CHUNKED + chunked(STREAM), places)

    assert outcome(answer) == (True, "", 4, (9, 7), False)
    assert list(answer.chunks_s) == sorted(answer.chunks_s)


@given(cuts, st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_lengths_lines_and_neighbours_may_be_otherwise(places: list[int], end: bytes) -> None:
    """A body with a length, every end of lines, comments, events that begin in one read."""
    body = b": hello\n\nevent: x\n".join([b"", *STREAM]).replace(b"\n", end)
    content = HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body)

    assert outcome(feed(content, places)) == (True, "", 4, (9, 7), False)


TEXTS = ["", " b", "\\n", '\\"', "\\", '"', "\n", "\x01", "é", "\\u00e9", "\ud83d", "data: "]


@pytest.mark.parametrize(
    "before, after",
    [
        ('{"choices":[{"delta":{"content":"', '"},"finish_reason":null}]}'),
        ('{"choices":[{"delta":{"content":"', '"},"finish_reason":"stop"}]}'),
        ('{"choices": [{"text": "', '", "index": 0}], "usage": null}'),
        ('{"choices":[{"text":"', '"}],"usage":{"completion_tokens":3,"prompt_tokens":1}}'),
        ('{"model":" word","choices":[{"delta":{"role":"assistant","content":"', '"}}]}'),
        ('{"choices":[{"delta":{"content":" word","content":"', '"}}]}'),
        ('{"choices":[{"delta":{"content":"a"}},{"delta":{"content":"', '"}}]}'),
        ('{"error":"', '","choices":[{"text":" word"}]}'),
        ('{"id":"', '","choices":[{"delta":{"content":" word"}}]}'),
        ('{"choices":[\ndata: {"delta":{"content":"', '"}}]}'),
        ('{"choices":[\n{"delta":{"content":"', '"}}]}'),
    ],
)
def test_events_alike_are_read_as_if_each_was_parsed(before: str, after: str) -> None:
    """Chunks with an extension (`;x=y`) are read event by event; plain ones by what is alike."""
    for text in TEXTS:
        events = [f"data: {before}{each}{after}\n\n" for each in (" word", text, " c", text)]
        parts = [each.encode(errors="surrogatepass") for each in events] + [STOP, DONE]
        plain = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)

        read, parsed = feed(CHUNKED + plain + b"0\r\n\r\n"), feed(CHUNKED + chunked(parts))

        assert (outcome(read), read.detail) == (outcome(parsed), parsed.detail), text


def test_each_chunk_has_the_time_at_which_its_bytes_arrived() -> None:
    answer = Answer()
    answer.feed(CHUNKED, 0.5)
    for number, part in enumerate([ROLE, *WORDS]):
        answer.feed(b"%x\r\n%b\r\n" % (len(part), part), float(number))

    assert list(answer.chunks_s) == [1.0, 2.0, 3.0, 4.0]
    assert (answer.opened_s, isnan(answer.closed_s)) == (0.0, True)
    answer.feed(b"%x\r\n%b\r\n" % (len(STOP), STOP), 5.0)
    assert answer.closed_s == 5.0
    assert not answer.over


@pytest.mark.parametrize(
    "choice",
    [
        {"delta": {"content": "a"}},
        {"delta": {"reasoning_content": "a"}},
        {"delta": {"reasoning": "a"}},
        {"delta": {"tool_calls": [{"index": 0}]}},
        {"delta": {"refusal": "no"}},
        {"text": "a"},
    ],
)
def test_text_reasoning_refusals_and_calls_are_content(choice: dict[str, object]) -> None:
    answer = feed(CHUNKED + chunked([ROLE, event({"choices": [choice]}), DONE]))

    assert (answer.failure, len(answer.chunks_s)) == ("", 1)


@pytest.mark.parametrize("blank", [{"delta": {"content": ""}}, {"text": ""}])
def test_tokens_without_a_text_count_where_there_are_no_others(blank: dict[str, object]) -> None:
    """As weights at random bring: the server has counted them, and each came in a chunk."""
    blanks = [event({"choices": [blank]})] * 3
    answer = feed(CHUNKED + chunked([ROLE, *blanks, STOP, USAGE, DONE]))
    assert outcome(answer) == (True, "", 3, (9, 7), False)
    assert feed(CHUNKED + chunked([ROLE, *blanks, STOP, DONE])).failure == "empty"
    assert len(feed(CHUNKED + chunked([ROLE, *blanks, *WORDS, USAGE, DONE])).chunks_s) == 4


def test_a_character_cut_between_events_and_a_last_line_without_its_blank_one() -> None:
    cut = b'data: {"choices":[{"delta":{"content":"\xe2\x82"}}]}\n\n'
    body = HEAD + b"connection: Keep-Alive, Close\r\n\r\n" + cut + b"data: [DONE]\n"
    answer = feed(body)

    answer.end_of_stream()

    assert outcome(answer) == (True, "", 1, (0, 0), True)


WRONG = [
    (
        b"HTTP/1.1 429 Slow\r\nRetry-After: 7\r\ncontent-length: 4\r\n\r\nbusy",
        "status 429",
        "(retry-after: 7) busy",
    ),
    (
        b"HTTP/1.1 307 There\r\nLocation: http://b/v1/x\r\ncontent-length: 0\r\n\r\n",
        "status 307",
        "(location: http://b/v1/x)",
    ),
    (HEAD + b"content-encoding: gzip\r\n\r\n\x1f\x8b", "protocol", "compressed (gzip), unasked"),
    (CHUNKED + chunked([b'event: error\ndata: {"message": "oom"}\n\n']), "error event", "oom"),
    (CHUNKED + chunked([b'error: {"code": 500}\n\n']), "error event", "500"),
    (b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nfull", "status 503", "full"),
    (b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n", "status 404", ""),
    (b"SSH-2.0-OpenSSH_9.6\r\n\r\n\r\n", "protocol", "no HTTP/1.1 answer"),
    (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
        "protocol",
        "no event stream: {}",
    ),
    (
        CHUNKED + chunked([WORDS[0], event({"error": {"message": "out of memory"}})]),
        "error event",
        "out of memory",
    ),
    (CHUNKED + chunked([event(b"{nonsense")]), "protocol", "no completion"),
    (CHUNKED + chunked([event(b"{} {}")]), "protocol", "no completion"),
    (CHUNKED + chunked([event(b'{"a":1}x')]), "protocol", "no completion"),
    (CHUNKED + chunked([event([1])]), "protocol", "no completion"),
    (CHUNKED + chunked([event({"choices": 5})]), "protocol", "no completion"),
    (CHUNKED + chunked(WORDS), "truncated", "without [DONE]"),
    (CHUNKED + chunked([ROLE, DONE]), "empty", "no content"),
    (CHUNKED + b"nonsense\r\n", "protocol", "a chunk of size b'nonsense'"),
    (CHUNKED + b"3\r\nabcd\r\n", "protocol", "a chunk without its end"),
    (b"HTTP/1.1 200 OK\r\n" + b"x" * MAX_HEAD_BYTES, "protocol", "a header of more than"),
    (
        HEAD + b"\r\n" + b"data: " + b"x" * MAX_EVENT_BYTES,
        "protocol",
        "an event of more than",
    ),
]


@pytest.mark.parametrize("content, failure, detail", WRONG, ids=range(len(WRONG)))
def test_what_is_no_answer_is_a_failure_of_a_kind(
    content: bytes, failure: str, detail: str
) -> None:
    answer = feed(content)

    assert answer.over
    assert answer.failure == failure
    assert detail in answer.detail


@given(st.integers(0, len(CHUNKED + chunked(STREAM)) - 1), cuts)
def test_a_stream_that_breaks_off_is_truncated(length: int, places: list[int]) -> None:
    answer = feed((CHUNKED + chunked(STREAM))[:length], places)

    answer.end_of_stream()

    assert answer.failure == ("truncated" if length else "closed")


def test_a_body_that_ends_with_its_connection_is_whole() -> None:
    answer = feed(HEAD + b"\r\n" + b"".join(STREAM))
    assert not answer.over

    answer.end_of_stream()

    assert outcome(answer) == (True, "", 4, (9, 7), True)


@given(st.lists(st.binary(max_size=200), max_size=8), st.booleans())
def test_no_bytes_upset_the_reader(parts: list[bytes], begun: bool) -> None:
    answer = Answer()
    for part in [CHUNKED, *parts] if begun else parts:
        if not answer.over:
            answer.feed(part, 0.0)
    answer.end_of_stream()

    assert answer.over


def _bodies(job: Job, numbers: Sequence[int]) -> Iterator[dict[str, object]]:
    writer = RequestWriter(job)
    for number in numbers:
        head, _, body = writer.request(number, 0).partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head
        yield json.loads(body)


@given(st.text(max_size=30), st.sampled_from(["chat", "completions"]))
def test_requests_are_json_with_prompts_that_no_server_knows_yet(text: str, api: str) -> None:
    job = Job(
        targets=[Target(url="http://h:1/v1", model="m", api=api)],
        asks=[Ask(text=text), Ask(text=text, output_tokens=3)],
        output_tokens=5,
        ignore_eos=True,
        unique=True,
        lead="77",
        first=100,
    )

    first, second, third = _bodies(job, [0, 1, 12])

    assert (first["max_tokens"], second["max_tokens"]) == (5, 3)
    assert len({json.dumps(each) for each in (first, second, third)}) == 3
    wanted = f"77000112 {text}"
    if api == "chat":
        assert third["messages"] == [{"role": "user", "content": wanted}]
    else:
        assert third["prompt"] == wanted
    assert Job.from_json(job.to_json()).to_json() == job.to_json()


def test_requests_leave_out_what_a_server_refuses() -> None:
    job = Job(
        targets=[Target(url="http://h:1/v1", model="m")],
        asks=[Ask(text="a")],
        output_tokens=5,
        ignore_eos=False,
        unique=False,
        ask_usage=False,
        limit_field="max_completion_tokens",
    )

    (body,) = _bodies(job, [0])

    assert body["max_completion_tokens"] == 5
    assert not {"max_tokens", "stream_options", "ignore_eos"} & body.keys()
