"""The client against real sockets: what servers do wrong, what it does on time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from loadtest.base.arrivals import CONSTANT, OpenLoad
from loadtest.base.job import Ask, Job, Target
from loadtest.base.records import RequestRecord
from loadtest.client.sender import Sender
from loadtest.load.trivial_servers import trivial_servers
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
WORD = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def whole(body: bytes) -> bytes:
    return HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body)


@pytest.fixture(scope="module")
def trivial() -> Iterator[Target]:
    with trivial_servers(1) as (target,):
        yield target


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[Target]:
    """A server that gives each connection these bytes in turn, a request each, and closes it."""

    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        for content in answers:
            try:
                await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            writer.write(content)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Target(url=f"http://127.0.0.1:{port}/v1", model="m")
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


def job_for(target: Target, **changes: object) -> Job:
    job = Job(
        targets=[target],
        asks=[Ask(text="hello")],
        output_tokens=4,
        ignore_eos=True,
        unique=True,
        concurrency=1,
        most_requests=1,
        start_s=time.monotonic(),
        timeout_s=scaled(20),
    )
    return replace(job, **changes)


async def records_of(job: Job) -> list[RequestRecord]:
    records: list[RequestRecord] = []
    async with asyncio.timeout(scaled(30)):
        await Sender(job, records.append).run()
    return records


async def test_requests_share_connections_and_are_all_answered(trivial: Target) -> None:
    records = await records_of(job_for(trivial, concurrency=5, most_requests=200))

    assert sorted(record.index for record in records) == list(range(200))
    assert Counter(record.failure for record in records) == {"": 200}
    assert {(r.output_tokens, len(r.chunks_s)) for r in records} == {(4, 4)}
    for record in records:
        assert record.sent_s <= record.first_s <= record.last_s <= record.end_s


async def test_an_open_schedule_does_not_wait_for_answers(trivial: Target) -> None:
    """Fifty requests in half a second, whatever comes back. More would be as many as a busy machine
    can send, where being late no longer grows with its load alone.
    """
    load = OpenLoad(spacing=CONSTANT, rate=100, final_rate=100, duration_s=0.5)
    start_s = time.monotonic() + 0.05

    records = await records_of(job_for(trivial, concurrency=0, load=load, start_s=start_s))

    assert [round(record.scheduled_s, 6) for record in sorted(records, key=lambda r: r.index)] == [
        round((number + 0.5) / 100, 6) for number in range(50)
    ]
    assert all(record.lag_s >= 0 for record in records)
    assert sorted(record.lag_s for record in records)[25] < scaled(0.02)


async def test_members_send_the_whole_schedule_together(trivial: Target) -> None:
    load = OpenLoad(spacing=CONSTANT, rate=100, final_rate=100, duration_s=0.2)
    jobs = [
        job_for(trivial, concurrency=0, load=load, member=member, members=3) for member in range(3)
    ]

    shares = await asyncio.gather(*map(records_of, jobs))

    assert sorted(record.index for share in shares for record in share) == list(range(20))


@pytest.mark.parametrize(
    "content, failure",
    [
        (b"HTTP/1.1 500 No\r\ncontent-length: 2\r\n\r\nno", "status 500"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(WORD) + WORD, "truncated"),
        (whole(WORD + b'data: {"error": {"message": "full"}}\n\n'), "error event"),
        (b"220 mail.example ESMTP\r\n\r\n", "protocol"),
        (b"", "closed"),
    ],
)
async def test_what_a_server_does_wrong_has_its_kind(content: bytes, failure: str) -> None:
    async with answering(content) as target:
        (record,) = await records_of(job_for(target))

    assert record.failure == failure


async def test_a_connection_that_the_server_closed_meanwhile_fails_no_request() -> None:
    """Each connection takes two requests; the second is not announced as the last one."""
    async with answering(whole(WORD + DONE), b"") as target:
        records = await records_of(job_for(target, most_requests=5))

    assert [record.failure for record in records] == [""] * 5


async def test_nobody_at_the_port_is_refused(trivial: Target) -> None:
    async with answering() as target:
        pass

    (record,) = await records_of(job_for(target))

    assert record.failure == "refused"


async def test_silence_ends_with_the_time_out() -> None:
    async with answering(HEAD + b"content-length: 10000\r\n\r\n" + WORD, *[b""] * 9) as target:
        (record,) = await records_of(job_for(target, timeout_s=0.3))

    assert record.failure == "timeout"
    assert len(record.chunks_s) == 1


async def test_what_cannot_be_in_flight_is_unsent_and_counted() -> None:
    load = OpenLoad(spacing=CONSTANT, rate=100, final_rate=100, duration_s=0.1)
    async with answering(HEAD + b"content-length: 10000\r\n\r\n", *[b""] * 99) as target:
        job = job_for(target, concurrency=0, load=load, most_in_flight=3, timeout_s=0.5)
        records = await records_of(job)

    assert Counter(record.failure for record in records) == {"unsent": 7, "timeout": 3}
    assert sum(record.sent for record in records) == 3


async def test_a_load_that_is_ended_fails_nothing(trivial: Target) -> None:
    load = OpenLoad(spacing=CONSTANT, rate=100, final_rate=100, duration_s=60)
    records: list[RequestRecord] = []
    sender = Sender(job_for(trivial, concurrency=0, load=load), records.append)
    running = asyncio.create_task(sender.run())
    async with asyncio.timeout(scaled(20)):
        while sender.counts.completed < 5:  # noqa: ASYNC110 - the sender has no event for it
            await asyncio.sleep(0.01)
        sender.stop()
        await running

    assert {record.failure for record in records} <= {"", "stopped"}
    assert sender.counts.completed >= 5
