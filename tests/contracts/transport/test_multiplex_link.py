"""The protocol of a shared ``ssh`` connection, against a master that this test plays."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.transport.multiplex import multiplex_link
from orchestrator.adapters.transport.multiplex.multiplex_link import (
    Channel,
    ChannelRefused,
    MultiplexLink,
    NoMaster,
)
from orchestrator.adapters.transport.multiplex.multiplex_messages import (
    MAX_MESSAGE_BYTES,
    MalformedMessage,
    Msg,
    Mux,
    Reader,
    Unframer,
    frame,
    string,
)
from tests.time_limits import scaled

pytestmark = pytest.mark.processes
REMOTE = 7
HELLO = struct.pack(">II", Mux.HELLO, 4)
READY = struct.pack(">II", Mux.PROXY_READY, 1)


@given(st.lists(st.binary(max_size=80), max_size=8), st.data())
def test_messages_arrive_whole_however_they_are_cut(
    messages: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(map(frame, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    unframer, seen = Unframer(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        seen += unframer.feed(stream[start:end])
    assert seen == messages


@given(st.binary(max_size=60))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    reader = Reader(data)
    try:
        while True:
            reader.string()
    except MalformedMessage:
        pass


def test_a_message_without_end_is_refused() -> None:
    with pytest.raises(MalformedMessage):
        Unframer().feed(struct.pack(">I", MAX_MESSAGE_BYTES + 1))


# ---- a master of the test's own -----------------------------------------------------------------


class Recorded(Channel):
    """A channel that writes down what happens to it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[object] = []
        self.over = asyncio.Event()

    def on_output(self, data: bytes, *, stderr: bool) -> None:
        self.seen.append(("stderr" if stderr else "stdout", data))

    def on_sent(self) -> None:
        self.seen.append("sent")

    def on_eof(self) -> None:
        self.seen.append("eof")

    def on_status(self, code: int) -> None:
        self.seen.append(("status", code))

    def on_signal(self, name: str) -> None:
        self.seen.append(("signal", name))

    def on_closed(self, reason: str, *, cut: bool) -> None:
        self.seen.append(("closed", "cut" if cut else reason))
        self.over.set()


class Master:
    """Greets as ``ssh`` does, then says what it is told; ``heard`` has what came, by type."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self.greeting = frame(HELLO) + frame(READY)
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        writer.write(self.greeting)
        unframer, greetings = Unframer(), 2
        while data := await reader.read(4096):
            for message in unframer.feed(data):
                if greetings:
                    greetings -= 1
                else:
                    self.heard.put_nowait((message[1], message[2:]))
        writer.close()

    def say(self, kind: Msg, body: bytes) -> None:
        assert self._writer is not None
        self._writer.write(frame(b"\0" + bytes([kind]) + body))

    def say_raw(self, data: bytes) -> None:
        assert self._writer is not None
        self._writer.write(data)

    async def hear(self, kind: Msg) -> bytes:
        async with asyncio.timeout(scaled(10)):
            heard, body = await self.heard.get()
        assert heard == kind
        return body

    async def confirm(self, window: int) -> int:
        """Opens the channel that is asked for; its number at the other end."""
        number = Reader((await self.hear(Msg.CHANNEL_OPEN))[len(string(b"session")) :]).uint32()
        self.say(Msg.CHANNEL_OPEN_CONFIRMATION, struct.pack(">IIII", number, REMOTE, window, 32768))
        return number


@pytest.fixture
async def master(tmp_path: Path) -> AsyncIterator[Master]:
    played = Master(tmp_path / "s")
    server = await asyncio.start_unix_server(played.serve, str(played.path))
    yield played
    server.close()


async def opened(master: Master, window: int) -> tuple[MultiplexLink, Recorded, int]:
    link, channel = await MultiplexLink.connect(master.path), Recorded()
    opening = asyncio.ensure_future(link.open(channel))
    number = await master.confirm(window)
    await opening
    return link, channel, number


async def test_no_more_is_sent_than_the_server_takes(master: Master) -> None:
    """And the end of input follows the last byte."""
    link, channel, number = await opened(master, window=10)
    channel.send(b"0123456789abc")
    channel.send_eof()
    assert await master.hear(Msg.CHANNEL_DATA) == struct.pack(">I", REMOTE) + string(b"0123456789")
    assert master.heard.empty()
    assert channel.seen == []
    master.say(Msg.CHANNEL_WINDOW_ADJUST, struct.pack(">II", number, 100))
    assert await master.hear(Msg.CHANNEL_DATA) == struct.pack(">I", REMOTE) + string(b"abc")
    await master.hear(Msg.CHANNEL_EOF)
    assert channel.seen == ["sent"]
    link.cut("done")


async def test_everything_about_a_channel_arrives_in_order(master: Master) -> None:
    link, channel, number = await opened(master, window=10)
    ours = struct.pack(">I", number)
    master.say(Msg.CHANNEL_DATA, ours + string(b"out"))
    master.say(Msg.CHANNEL_EXTENDED_DATA, ours + struct.pack(">I", 1) + string(b"err"))
    killed = string(b"exit-signal") + b"\0" + string(b"KILL") + b"\0" + string(b"") + string(b"")
    master.say(Msg.CHANNEL_REQUEST, ours + killed)
    master.say(Msg.CHANNEL_EOF, ours)
    master.say(Msg.CHANNEL_DATA, struct.pack(">I", number + 1) + string(b"of nobody"))
    master.say(Msg.CHANNEL_CLOSE, ours)
    await master.hear(Msg.CHANNEL_CLOSE)
    closed = ("closed", "the channel closed without an exit status")
    signal = ("signal", "KILL")
    assert channel.seen == [("stdout", b"out"), ("stderr", b"err"), signal, "eof", closed]
    with pytest.raises(BrokenPipeError):
        channel.send(b"late")
    link.cut("done")


async def test_a_server_that_opens_no_channel(master: Master) -> None:
    link = await MultiplexLink.connect(master.path)
    opening = asyncio.ensure_future(link.open(Recorded()))
    number = Reader((await master.hear(Msg.CHANNEL_OPEN))[len(string(b"session")) :]).uint32()
    refusal = struct.pack(">II", number, 1) + string(b"Session open refused by peer") + string(b"")
    master.say(Msg.CHANNEL_OPEN_FAILURE, refusal)
    with pytest.raises(ChannelRefused, match="Session open refused"):
        await opening
    link.cut("done")


@pytest.mark.parametrize(
    "garbage",
    [b"\xff" * 40, frame(b"\0"), frame(b"\0" + bytes([Msg.CHANNEL_DATA]) + b"\0")],
    ids=["too long", "no type", "too short"],
)
async def test_a_master_that_loses_its_mind_costs_the_link(master: Master, garbage: bytes) -> None:
    """Every channel ends as lost, never as a success."""
    link, channel, _ = await opened(master, window=10)
    master.say_raw(garbage)
    async with asyncio.timeout(scaled(10)):
        await channel.over.wait()
    assert channel.seen == [("closed", "cut")]
    assert "does not speak its protocol" in link.dead
    with pytest.raises(NoMaster):
        await link.open(Recorded())


@pytest.mark.parametrize("greeting", [frame(b"SSH-2.0-x"), frame(struct.pack(">II", 1, 3))])
async def test_whoever_is_no_master_is_refused(master: Master, greeting: bytes) -> None:
    master.greeting = greeting
    with pytest.raises(NoMaster, match="protocol"):
        await MultiplexLink.connect(master.path)


async def test_whoever_says_nothing_is_no_master(
    master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multiplex_link, "ANSWER_S", 0.05)
    master.greeting = b""
    with pytest.raises(NoMaster, match="no answer"):
        await MultiplexLink.connect(master.path)
