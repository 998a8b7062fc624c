"""What the transports share: bounded byte streams, and a process fed by callbacks.

An implementation reports by callbacks (``on_data``, ``on_exit``, ``on_closed``) on the event loop;
its hooks (``_send`` and friends) never block.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable

from orchestrator.adapters.transport.transport import CHUNK_BYTES, ChannelClosed, LineTooLong
from orchestrator.core.base.outcome import Lost, Outcome, TimedOut

HIGH_WATER_BYTES = 1024 * 1024
KILL_GRACE_S = 2.0


class ByteStream:
    """A buffer between callbacks and one reader. ``on_room`` runs when a read made room."""

    def __init__(self, on_room: Callable[[], None]) -> None:
        self._on_room = on_room
        self._buffer = bytearray()
        self._high_water_bytes = HIGH_WATER_BYTES
        self._changed = asyncio.Event()
        self.finished = False

    @property
    def full(self) -> bool:
        """Whether the source should pause."""
        return len(self._buffer) >= self._high_water_bytes

    def feed(self, data: bytes) -> None:
        self._buffer += data
        self._changed.set()

    def finish(self) -> None:
        self.finished = True
        self._changed.set()

    async def read(self, n: int) -> bytes:
        """1 to ``n`` bytes, or ``b""`` at the end."""
        while not self._buffer and not self.finished:
            await self._change()
        return self._take(n)

    async def read_line(self, limit_bytes: int) -> bytes:
        """A line with its newline; the last one may lack it. Raises :class:`LineTooLong`."""
        self._high_water_bytes = max(HIGH_WATER_BYTES, limit_bytes + 1)
        self._on_room()
        searched = 0
        while (end := self._buffer.find(b"\n", searched, limit_bytes)) < 0:
            searched = len(self._buffer)
            if searched >= limit_bytes:
                raise LineTooLong(f"a line is longer than {limit_bytes} bytes")
            if self.finished:
                return self._take(searched)
            await self._change()
        return self._take(end + 1)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _take(self, n: int) -> bytes:
        data = bytes(memoryview(self._buffer)[:n])
        del self._buffer[:n]
        self._on_room()
        return data


class StreamedProcess(ABC):
    """A ``Process`` on top of callbacks and hooks."""

    def __init__(self) -> None:
        self.stdout = ByteStream(self._adjust_flow)
        self.stderr = ByteStream(self._adjust_flow)
        self._outcome: Outcome | None = None
        self._ended = asyncio.Event()
        self._closed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._killed = False
        self._input_over = False

    @property
    def outcome(self) -> Outcome | None:
        """How it ended, if it has."""
        return self._outcome

    # What implementations do ------------------------------------------------------------------

    @abstractmethod
    def _send(self, data: bytes) -> None:
        """Queue input. Raises ``OSError`` when the channel is closed."""

    @abstractmethod
    def _send_eof(self) -> None:
        """Queue the end of input. Raises ``OSError`` when the channel is closed."""

    @abstractmethod
    def _adjust_flow(self) -> None:
        """Pause or resume the source to match how full the streams are."""

    @abstractmethod
    async def _send_kill(self) -> None:
        """Ask for SIGKILL. Must not raise; its caller bounds it."""

    @abstractmethod
    def _close_channel(self) -> None:
        """Drop the channel; ``on_closed`` follows. Must not raise."""

    # What implementations report --------------------------------------------------------------

    def on_data(self, stream: ByteStream, data: bytes) -> None:
        if not self._killed:
            stream.feed(data)
            self._adjust_flow()

    def on_exit(self, outcome: Outcome) -> None:
        self._outcome = self._outcome or outcome
        self._ended.set()

    def on_closed(self, reason: str, *, cut: bool) -> None:
        """The channel is gone: by agreement, or ``cut`` with the link. Idempotent."""
        if self._closed.is_set():
            return
        incomplete = not (self.stdout.finished and self.stderr.finished)
        if self._outcome is None or (cut and incomplete):
            self._outcome = Lost(reason)
        for stream in (self.stdout, self.stderr):
            stream.finish()
        self._ended.set()
        self._closed.set()
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # The contract -----------------------------------------------------------------------------

    async def write(self, data: bytes) -> None:
        view = memoryview(data)
        for start in range(0, len(view), CHUNK_BYTES):
            await self._writable.wait()
            if self._input_over:
                raise ChannelClosed("its input was closed before")
            self._attempt(self._send, bytes(view[start : start + CHUNK_BYTES]))
        await self._writable.wait()

    async def close_stdin(self) -> None:
        self._input_over = True
        if not self._closed.is_set():
            self._attempt(self._send_eof)

    async def read_stdout(self, n: int) -> bytes:
        return await self.stdout.read(n)

    async def read_stderr(self, n: int) -> bytes:
        return await self.stderr.read(n)

    async def read_line(self, limit_bytes: int) -> bytes:
        return await self.stdout.read_line(limit_bytes)

    async def wait(self, timeout_s: float) -> Outcome:
        try:
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        except TimeoutError:
            await self.kill()
            return TimedOut(timeout_s)
        assert self._outcome is not None
        return self._outcome

    async def kill(self) -> None:
        if self._closed.is_set():
            return
        self._killed = True
        self._adjust_flow()
        try:
            async with asyncio.timeout(KILL_GRACE_S):
                if self._outcome is None:
                    await self._send_kill()
                await self._ended.wait()
        except TimeoutError:
            pass  # an unreachable node; its agent's lease ends what is left there
        finally:
            self._close_channel()
            self.on_closed("it was killed", cut=False)

    def _attempt(self, act: Callable[..., None], *args: bytes) -> None:
        if self._closed.is_set() or self._killed:
            raise ChannelClosed(self._gone())
        try:
            act(*args)
        except OSError as error:
            raise ChannelClosed(self._gone()) from error

    def _gone(self) -> str:
        if isinstance(self._outcome, Lost):
            return self._outcome.reason
        return "the process takes no input any more"
