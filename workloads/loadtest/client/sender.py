"""The event loop of one sending process: sends on time, takes down what comes."""

from __future__ import annotations

import asyncio
import math
import ssl
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from ..base.arrivals import share_of_count
from ..base.job import Job
from ..base.records import STOPPED, RequestRecord
from .connection import StreamConnection
from .pacing import Pacer
from .requests import RequestWriter
from .stream import Answer

TICK_S = 0.1
MOST_TRIES = 2
UNSENT = "unsent"


@dataclass(slots=True)
class Counts:
    """What this process has done so far."""

    due: int = 0
    sent: int = 0
    completed: int = 0
    failed: int = 0
    output_tokens: int = 0
    prompt_tokens: int = 0
    ttft_s: float = 0.0
    first_tokens: int = 0

    @property
    def in_flight(self) -> int:
        return self.due - self.completed - self.failed


@dataclass(slots=True)
class _Open:
    """A request that has no outcome yet."""

    number: int
    scheduled_s: float
    sent_s: float
    target: int
    tries: int = 0
    connection: StreamConnection | None = None


class Sender:
    """One stage of a load. ``on_record`` gets each outcome, with times from ``job.start_s`` on."""

    def __init__(self, job: Job, on_record: Callable[[RequestRecord], None]) -> None:
        self.job, self.counts = job, Counts()
        self._on_record = on_record
        self._loop = asyncio.get_running_loop()
        self._writer = RequestWriter(job)
        self._idle: list[list[StreamConnection]] = [[] for _ in job.targets]
        self._open: dict[int, _Open] = {}
        self._dialing: set[asyncio.Task[None]] = set()
        self._tls = ssl.create_default_context() if any(t.tls for t in job.targets) else None
        self._finished = asyncio.Event()
        self._stopped = False
        self._pacer: Pacer | None = None
        self._next_due_s = math.inf

    async def run(self) -> None:
        """Send the whole stage, and wait for the answers, each at most ``job.timeout_s``."""
        times = self.job.schedule()
        streams = self.job.streams()
        ticking = asyncio.create_task(self._tick())
        try:
            if streams:
                await self._keep_open(streams)
            elif times:
                await self._keep_to(times)
        finally:
            ticking.cancel()
            self._close()
            await asyncio.sleep(0)  # in which connections see that they are closed

    def stop(self) -> None:
        """Send nothing more, and end what is open: it did not fail, it was not awaited."""
        self._stopped = True
        if self._pacer is not None:
            self._pacer.stop()
        for request in list(self._open.values()):
            self._drop(request, STOPPED, "the load was ended")
        self._finished.set()

    # -- when to send ----------------------------------------------------------------------------

    async def _keep_to(self, times: array[float]) -> None:
        start_s = self.job.start_s
        due = array("d", (start_s + at_s for at_s in times))
        self._pacer = Pacer(self._loop, due, self._issue)
        self._pacer.look()
        self._next_due_s = self._pacer.next_s
        await self._finished.wait()

    async def _keep_open(self, streams: int) -> None:
        await asyncio.sleep(max(0.0, self.job.start_s - monotonic()))
        for _ in range(streams):
            self._issue_next()
        await self._finished.wait()

    def _issue_next(self) -> None:
        """Of a closed loop: the next one, when one is over."""
        job, now_s = self.job, monotonic()
        share = share_of_count(job.most_requests, job.member, job.members)
        over = now_s - job.start_s >= job.duration_s > 0
        if self._stopped or over or (job.most_requests and self.counts.due >= share):
            if not self._open:
                self._finished.set()
            return
        self._issue(self.counts.due, now_s)

    def _issue(self, place: int, at_s: float) -> None:
        job, counts = self.job, self.counts
        counts.due += 1
        number = place * job.members + job.member
        target = number % len(job.targets)
        if len(self._open) >= job.most_in_flight:
            request = _Open(number, at_s, math.nan, target)
            detail = f"{len(self._open)} requests are in flight already"
            self._conclude(request, None, UNSENT, detail)
            return
        request = self._open[number] = _Open(number, at_s, monotonic(), target)
        counts.sent += 1
        self._send(request)

    # -- sending ---------------------------------------------------------------------------------

    def _send(self, request: _Open) -> None:
        request.tries += 1
        idle = self._idle[request.target]
        while idle:
            connection = idle.pop()
            if connection.usable:
                self._write(request, connection)
                return
        task = self._loop.create_task(self._dial(request))
        self._dialing.add(task)
        task.add_done_callback(self._dialing.discard)

    def _write(self, request: _Open, connection: StreamConnection) -> None:
        request.connection = connection
        content = self._writer.request(request.number, request.target)
        connection.send(request.number, content)

    async def _dial(self, request: _Open) -> None:
        target = self.job.targets[request.target]
        try:
            _, connection = await self._loop.create_connection(
                lambda: StreamConnection(self._on_over, self._on_data),
                target.host,
                target.port,
                ssl=self._tls if target.tls else None,
            )
        except OSError as error:
            if self._open.pop(request.number, None) is not None:
                kind = "refused" if isinstance(error, ConnectionRefusedError) else "connect"
                self._conclude(request, None, kind, str(error))
            return
        if request.number in self._open:
            self._write(request, connection)
        else:  # it timed out meanwhile
            connection.abort()

    # -- what comes ------------------------------------------------------------------------------

    def _on_data(self, now_s: float) -> None:
        """Between two reads: nothing that is due waits for the end of a busy turn of the loop."""
        if now_s >= self._next_due_s and self._pacer is not None:
            self._pacer.look()
            self._next_due_s = self._pacer.next_s

    def _on_over(self, connection: StreamConnection) -> None:
        request = self._open.get(connection.request)
        answer, connection.answer = connection.answer, None
        if request is None or request.connection is not connection or answer is None:
            return
        stale = answer.failure == "closed" and connection.used > 1 and request.tries < MOST_TRIES
        if stale and not self._stopped:
            self._send(request)  # the server had closed the idle connection
            return
        del self._open[request.number]
        if connection.usable and not answer.closes:
            self._idle[request.target].append(connection)
        self._conclude(request, answer, answer.failure, answer.detail)

    def _conclude(self, request: _Open, answer: Answer | None, kind: str, detail: str) -> None:
        counts, start_s = self.counts, self.job.start_s
        chunks: Sequence[float] = answer.chunks_s if answer is not None else ()
        tokens = (answer.output_tokens or len(chunks)) if answer is not None else 0
        if kind:
            counts.failed += 1
        else:
            counts.completed += 1
            counts.output_tokens += tokens
            counts.prompt_tokens += answer.prompt_tokens if answer is not None else 0
            counts.first_tokens += 1
            counts.ttft_s += chunks[0] - request.scheduled_s
        shift = -start_s
        self._on_record(
            RequestRecord(
                index=request.number,
                scheduled_s=request.scheduled_s + shift,
                sent_s=request.sent_s + shift,
                chunks_s=array("d", (at_s + shift for at_s in chunks)),
                end_s=monotonic() + shift,
                output_tokens=tokens,
                prompt_tokens=answer.prompt_tokens if answer is not None else 0,
                stage=self.job.stage,
                failure=kind,
                detail=detail if kind else "",
                opened_s=answer.opened_s + shift if answer is not None else math.nan,
                closed_s=answer.closed_s + shift if answer is not None else math.nan,
            )
        )
        if self.job.concurrency:
            # Not from here: a server that refuses at once would recurse, and spin.
            if kind:
                self._loop.call_later(TICK_S, self._issue_next)
            else:
                self._loop.call_soon(self._issue_next)
        elif self._pacer is not None and self._pacer.over and not self._open:
            self._finished.set()

    # -- time ------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        """End what has been open for too long. Requests are open in the order of their sending."""
        while True:
            await asyncio.sleep(TICK_S)
            late_s = monotonic() - self.job.timeout_s
            for request in list(self._open.values()):
                if request.sent_s > late_s:
                    break
                self._drop(request, "timeout", f"no end after {self.job.timeout_s:g} s")

    def _drop(self, request: _Open, kind: str, detail: str) -> None:
        del self._open[request.number]
        connection = request.connection
        answer = connection.answer if connection is not None else None
        if connection is not None:
            connection.abort()
        self._conclude(request, answer, kind, detail)

    def _close(self) -> None:
        for task in self._dialing:
            task.cancel()
        for connections in self._idle:
            for connection in connections:
                connection.abort()
