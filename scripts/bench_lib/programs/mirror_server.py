"""A server before a real one: what that streams to one client, it streams to others again.

    (echo '{"host": "127.0.0.1", "port": 8000}'; cat) | python3 mirror_server.py

It prints two ports. Requests to the first are passed on to the real server, and the answers back as
they come. The n-th request to the second gets the n-th of these answers: the same pieces, each as
long after this request as it was after the first one; behind the last answer comes the first. Each
further line of standard input is `leader PATH` or `followers PATH`: that file receives a record (a
line of JSON, as the load test's own) of each completion since the last one; or `forget`: the
answers. It prints the line when that is done. The end of standard input ends it. Times are those of
the monotonic clock: when a request was read whole, and just before each piece is written.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from time import monotonic

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "workloads"))
sys.path.insert(0, str(ROOT / "scripts"))

from bench_lib.programs.stamped_server import ask_for_real_time, write_records  # noqa: E402 - as below

from loadtest.base.records import RequestRecord, to_line  # noqa: E402 - once it can be found
from loadtest.client.pacing import make_timer  # noqa: E402
from loadtest.client.stream import Answer  # noqa: E402

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,8})\r\n", re.IGNORECASE)
MAX_REQUEST_BYTES = 16 * 1024 * 1024


class Stream:
    """One answer of the real server: pieces, and when they came after the request."""

    def __init__(self) -> None:
        self.pieces: list[tuple[float, bytes]] = []
        self.over = False
        self._waiting: list[Callable[[], None]] = []

    def add(self, after_s: float, piece: bytes) -> None:
        self.pieces.append((after_s, piece))
        self._wake()

    def end(self) -> None:
        self.over = True
        self._wake()

    def wait(self, call: Callable[[], None]) -> None:
        """Call it once, when there is more."""
        self._waiting.append(call)

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for call in waiting:
            call()


class Streams:
    """All answers to completions since the last ``again``, in the order of their requests."""

    def __init__(self) -> None:
        self._all: list[Stream] = []
        self._waiting: dict[int, Callable[[Stream], None]] = {}
        self.asked = 0

    def open(self) -> Stream:
        stream = Stream()
        self._all.append(stream)
        if call := self._waiting.pop(len(self._all) - 1, None):
            call(stream)
        return stream

    def follow(self, call: Callable[[Stream], None]) -> None:
        """Call it with the next one; from the first one on again, once all are over."""
        number, self.asked = self.asked, self.asked + 1
        if self._all and all(stream.over for stream in self._all):
            number %= len(self._all)
        if number < len(self._all):
            call(self._all[number])
        else:
            self._waiting[number] = call

    def forget(self) -> None:
        self._all.clear()
        self._waiting.clear()


class Stamps:
    """Takes down one answer as it is written."""

    def __init__(self, records: list[str]) -> None:
        self.received_s = monotonic()
        self._records, self._answer = records, Answer()

    @property
    def over(self) -> bool:
        return self._answer.over

    def see(self, piece: bytes) -> None:
        now_s = monotonic()
        answer = self._answer
        answer.feed(piece, now_s)
        if not answer.over or not answer.chunks_s:
            return
        record = RequestRecord(
            index=len(self._records),
            scheduled_s=self.received_s,
            sent_s=self.received_s,
            chunks_s=answer.chunks_s,
            end_s=now_s,
            output_tokens=answer.output_tokens or len(answer.chunks_s),
            prompt_tokens=answer.prompt_tokens,
            failure=answer.failure,
            opened_s=answer.opened_s,
            closed_s=answer.closed_s,
        )
        self._records.append(to_line(record))


class Client(asyncio.Protocol, ABC):
    """A connection of a client: one request after the other."""

    def __init__(self, streams: Streams, records: list[str]) -> None:
        self.streams, self.records = streams, records
        self.transport: asyncio.Transport | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        end = received.find(b"\r\n\r\n")
        if end < 0 or len(received) > MAX_REQUEST_BYTES:
            return
        length = _LENGTH.search(received, 0, end + 2)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(received) >= whole:
            self._received = received[whole:]
            self.ask(received[:whole], b"completions" in received[: received.find(b"\r\n")])

    @abstractmethod
    def ask(self, request: bytes, completion: bool) -> None:
        """A request that was read whole."""

    def write(self, piece: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(piece)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.transport = None


class Leader(Client):
    """Passed on to the real server, over a connection of its own."""

    def __init__(
        self, streams: Streams, records: list[str], dial: Callable[[Leader], asyncio.Task[None]]
    ) -> None:
        super().__init__(streams, records)
        self._dial, self._dialing = dial, set[asyncio.Task[None]]()
        self._waiting: list[bytes] = []
        self._server: asyncio.Transport | None = None
        self._stream: Stream | None = None
        self._stamps: Stamps | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._dialing.add(self._dial(self))

    def ask(self, request: bytes, completion: bool) -> None:
        self._stream = self.streams.open() if completion else None
        self._stamps = Stamps(self.records) if completion else None
        if self._server is None:
            self._waiting.append(request)
        else:
            self._server.write(request)

    def reach(self, server: asyncio.Transport) -> None:
        self._server = server
        for request in self._waiting:
            server.write(request)

    def pass_back(self, piece: bytes) -> None:
        if self._stream is not None and self._stamps is not None:
            self._stream.add(monotonic() - self._stamps.received_s, piece)
            self._stamps.see(piece)
            if self._stamps.over:
                self._stream.end()
        self.write(piece)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._server is not None:
            self._server.close()


class Server(asyncio.Protocol):
    """The connection to the real server."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._leader.reach(transport)

    def data_received(self, data: bytes) -> None:
        self._leader.pass_back(data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._leader.transport is not None:
            self._leader.transport.close()


class Follower(Client):
    """Answered as the leader was."""

    def __init__(self, streams: Streams, records: list[str]) -> None:
        super().__init__(streams, records)
        self._timer = make_timer(asyncio.get_running_loop(), self._next)
        self._stream: Stream | None = None
        self._stamps: Stamps | None = None
        self._place = 0

    def ask(self, request: bytes, completion: bool) -> None:
        del request
        if not completion:
            self.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            return
        self._stamps, self._stream, self._place = Stamps(self.records), None, 0
        self.streams.follow(self._begin)

    def _begin(self, stream: Stream) -> None:
        self._stream = stream
        self._next()

    def _next(self) -> None:
        """Write what is due; then wait for the next piece's time, or for the piece."""
        stream, stamps = self._stream, self._stamps
        if stream is None or stamps is None or self.transport is None:
            return
        while self._place < len(stream.pieces):
            after_s, piece = stream.pieces[self._place]
            if stamps.received_s + after_s > monotonic():
                self._timer.set(stamps.received_s + after_s)
                return
            self._place += 1
            stamps.see(piece)
            self.write(piece)
        if not stream.over:
            stream.wait(self._next)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._timer.close()


async def serve(host: str, port: int) -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    streams, records = Streams(), {"leader": list[str](), "followers": list[str]()}

    async def connect(leader: Leader) -> None:
        await loop.create_connection(lambda: Server(leader), host, port)

    def lead() -> Leader:
        return Leader(streams, records["leader"], lambda each: loop.create_task(connect(each)))

    servers = [
        await loop.create_server(make, "127.0.0.1", 0, backlog=4096)
        for make in (lead, lambda: Follower(streams, records["followers"]))
    ]
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    while line := (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        what, _, path = line.partition(" ")
        if what == "forget":
            streams.forget()
        elif what in records:
            write_records(Path(path), records[what])
        streams.asked = 0
        print(line, flush=True)


if __name__ == "__main__":
    ask_for_real_time()
    options = json.loads(sys.stdin.readline())
    asyncio.run(serve(options["host"], options["port"]))
