"""The contract of every transport: start a command on a node, talk to it, learn how it ended.

Nothing here knows SSH. What all implementations promise:

* Bytes are exact in both directions, and memory stays bounded: a reader that does not read slows
  the writer down, it does not fill a buffer.
* A dead link is ``Lost``, never a success.
* ``Command.argv`` reaches the program unchanged. ``cwd=None`` is the user's home directory; a
  relative ``cwd`` starts there. Secrets in ``env`` are refused with ``ValueError``: they travel by
  standard input.
* Errors of connecting are ``PreflightError`` with an ``OR-SSH-`` id.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from orchestrator.core.base.command import Command
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.base.outcome import Lost, Outcome, TimedOut

DEFAULT_LIMIT_BYTES = 16 * 1024 * 1024
CHUNK_BYTES = 64 * 1024


class ChannelClosed(ConnectionError):
    """The process takes no input any more: it ended, closed its input, or the link is gone."""


class LineTooLong(ValueError):
    """A line exceeds the reader's bound."""


class NotStarted(PreflightError):
    """The node's login shell did something else in place of the command. ``outcome`` is how that
    ended; None: it has not, and whether it would ever run the command is unknown.
    """

    outcome: Outcome | None = None


class Process(Protocol):
    """A running command. Whoever starts it ends it, with ``wait`` or ``kill``.

    Both output streams share one flow window over SSH: read both, or neither, to keep data moving.
    Reads and writes wait as long as the process and the link live (keepalive ends a dead link);
    callers bound them with ``asyncio.timeout``.
    """

    async def write(self, data: bytes) -> None:
        """Send to standard input; returns when there is room. Raises :class:`ChannelClosed`."""

    async def close_stdin(self) -> None:
        """End of input: nothing can be written any more. Idempotent."""

    async def read_stdout(self, n: int) -> bytes:
        """1 to ``n`` bytes; ``b""`` at the end of the stream or when the link is lost."""

    async def read_stderr(self, n: int) -> bytes:
        """Like ``read_stdout``."""

    async def read_line(self, limit_bytes: int) -> bytes:
        """One line of standard output with its newline; the last may lack it; ``b""`` at the end.

        Raises :class:`LineTooLong` beyond ``limit_bytes``; nothing is consumed then.
        """

    async def wait(self, timeout_s: float) -> Outcome:
        """How it ended, as soon as that is known. On expiry the process is killed: ``TimedOut``.

        Asked after both streams were read to their end, it also vouches for them: output that a
        broken link cut off makes it ``Lost``, whatever the exit status was.
        """

    async def kill(self) -> None:
        """SIGKILL to the process group; closes the channel. Bounded, idempotent, never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A finished command. ``truncated``: a stream was longer than the limit and is cut there."""

    outcome: Outcome
    stdout: bytes
    stderr: bytes
    truncated: bool = False


class Transport(Protocol):
    """A way to the node that is called ``node`` in the inventory. Implementations inherit ``run``,
    which feeds input and drains both streams at once.
    """

    node: str

    async def start(self, command: Command, *, timeout_s: float, has_input: bool = True) -> Process:
        """The running ``command``; ``timeout_s`` bounds the start only. Without ``has_input`` its
        standard input is at its end from the beginning.

        Raises :class:`ChannelClosed` when the link is gone, ``TimeoutError``, ``ValueError`` for a
        command that cannot be sent, :class:`NotStarted` when the node's login shell does not run
        it, and ``PreflightError`` when the node refuses.
        """

    async def run(
        self,
        command: Command,
        *,
        stdin: bytes | BinaryIO = b"",
        timeout_s: float,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
    ) -> Completed:
        """Run to the end within ``timeout_s``; at most ``limit_bytes`` of each stream are kept. A
        file as ``stdin`` is sent from where it stands, and never in memory as a whole.

        Cancelling kills the command. Raises as ``start`` does, except that a lost link and an
        expired time are outcomes.
        """
        return await _run_to_end(
            self, command, stdin=stdin, timeout_s=timeout_s, limit_bytes=limit_bytes
        )

    def cut(self) -> bool:
        """Break the link at once and without a goodbye, as a network would; False: there is none.

        For drills. The transport is of no use afterwards, but is still to be closed.
        """

    async def close(self) -> None:
        """Give the link back. Bounded, idempotent, never raises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectLimits:
    """Bounds of connecting. A silent link counts as dead after ``silence_s`` seconds."""

    connect_timeout_s: float = 20.0
    attempts: int = 6
    keepalive_interval_s: float = 5.0
    keepalive_count: int = 2
    handshakes: int = 32
    handshakes_per_host: int = 8

    @property
    def silence_s(self) -> float:
        """After so many seconds without a sign of life the link is given up."""
        return self.keepalive_interval_s * (self.keepalive_count + 1)


async def _run_to_end(
    transport: Transport,
    command: Command,
    *,
    stdin: bytes | BinaryIO,
    timeout_s: float,
    limit_bytes: int,
) -> Completed:
    process: Process | None = None
    captures = _Capture(limit_bytes), _Capture(limit_bytes)
    outcome: Outcome
    try:
        async with asyncio.timeout(timeout_s):
            process = await transport.start(command, timeout_s=timeout_s, has_input=bool(stdin))
            async with asyncio.TaskGroup() as group:
                group.create_task(_feed_stdin(process, stdin))
                group.create_task(captures[0].drain(process.read_stdout))
                group.create_task(captures[1].drain(process.read_stderr))
            outcome = await process.wait(timeout_s)
    except TimeoutError:
        outcome = TimedOut(timeout_s)
    except ChannelClosed as error:
        outcome = Lost(str(error))
    finally:
        if process is not None:
            await process.kill()
    stdout, stderr = captures
    return Completed(
        outcome=outcome,
        stdout=bytes(stdout.data),
        stderr=bytes(stderr.data),
        truncated=stdout.truncated or stderr.truncated,
    )


class _Capture:
    """Keeps the first ``limit_bytes`` of a stream and lets the rest pass."""

    def __init__(self, limit_bytes: int) -> None:
        self.data = bytearray()
        self.truncated = False
        self._limit_bytes = limit_bytes

    async def drain(self, read: Callable[[int], Awaitable[bytes]]) -> None:
        while chunk := await read(CHUNK_BYTES):
            room = self._limit_bytes - len(self.data)
            self.data += chunk[:room]
            self.truncated |= len(chunk) > room


async def _feed_stdin(process: Process, stdin: bytes | BinaryIO) -> None:
    # A program may end without reading all of its input; how it ended tells whether that was right.
    with contextlib.suppress(ChannelClosed):
        if isinstance(stdin, bytes):
            await process.write(stdin)
        else:
            while chunk := await asyncio.to_thread(stdin.read, CHUNK_BYTES):
                await process.write(chunk)
        await process.close_stdin()
