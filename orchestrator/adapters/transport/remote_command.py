"""The one line that SSH hands to a node's login shell, and what comes back before the command.

Whatever the login shell is (bash, dash, fish, ...), it only starts ``sh`` with quoted words. That
``sh`` first prints a marker on both streams: what precedes it is the noise of start-up files and
banners, not the command's output. The marker carries the process id, which is also the process
group: the SSH signal request is refused by many servers (OpenSSH, when root logs in), so killing
needs it.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Callable
from typing import TypeVar

from orchestrator.adapters.transport.streams import StreamedProcess
from orchestrator.core.base.command import Command, Secret, render_shell, reveal

# sshd grants ten sessions to a connection (MaxSessions); the tenth is kept for killing.
MAX_SESSIONS = 9
# A session that ended occupies its place in sshd for a moment longer.
REFUSED_PAUSE_S = 0.02
# Linux limits one argument of execve, and the login shell gets the whole line as one.
MAX_LINE_BYTES = 128 * 1024 - 1
MAX_NOISE_BYTES = 1024 * 1024
MAX_PID_DIGITS = 10
UNKNOWN_SIGNAL = 99
_SCRIPT = (
    'm=$1 d=$2; shift 2; echo "$m $$"; echo "$m 0" >&2; '
    'if [ -n "$d" ]; then cd -- "$d" || exit; fi; exec "$@"'
)


def new_marker() -> str:
    """A word that no start-up file prints by chance."""
    return f"orchestrate-{secrets.token_hex(8)}"


def remote_line(command: Command, marker: str) -> bytes:
    """``command`` for a login shell. Raises ``ValueError``: a secret, or more than Linux takes.

    The environment stands in the line, hence in the node's process list: no place for a secret.
    """
    if any(isinstance(value, Secret) for value in command.env.values()):
        raise ValueError("a secret must travel over standard input, not the environment")
    words = ("sh", "-c", _SCRIPT, "sh", marker, command.cwd or "", *_with_environment(command))
    line = render_shell(words).encode(errors="surrogateescape")
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(
            f"the command line has {len(line)} bytes, Linux takes {MAX_LINE_BYTES}: "
            "send what is long over standard input"
        )
    return line


def kill_line(group: int) -> bytes:
    """A line that kills a process group, for any login shell."""
    return render_shell(("sh", "-c", f"kill -9 -{group}")).encode()


def _with_environment(command: Command) -> tuple[str, ...]:
    pairs = tuple(f"{name}={reveal(value)}" for name, value in command.env.items())
    program = command.argv[0]
    if pairs and "=" in program:  # env would take it for one more pair
        return ("env", "--", *pairs, "sh", "-c", 'exec "$@"', "sh", *command.argv)
    if pairs or program.startswith("-"):
        return ("env", "--", *pairs, *command.argv)
    return command.argv


class Preamble:
    """Holds back a stream until the marker has passed; tells ``on_pid`` the number behind it.

    Noise is dropped. A stream that ends, or goes on for 1 MiB, without a marker is let through as
    it is: the login shell had something else to say.
    """

    def __init__(self, marker: str, on_pid: Callable[[int], None]) -> None:
        self._marker = marker.encode() + b" "
        self._on_pid = on_pid
        self._held: bytearray | None = bytearray()

    def feed(self, data: bytes) -> bytes:
        """What may pass after ``data`` arrived."""
        if self._held is None:
            return data
        self._held += data
        start = self._held.find(self._marker)
        end = self._held.find(b"\n", start) if start >= 0 else -1
        if end >= 0:
            digits = bytes(self._held[start + len(self._marker) : end])
            self._on_pid(int(digits) if digits.isdigit() and len(digits) < MAX_PID_DIGITS else 0)
            rest = bytes(self._held[end + 1 :])
            self._held = None
            return rest
        return self.finish() if len(self._held) > MAX_NOISE_BYTES else b""

    def finish(self) -> bytes:
        """What was held back when the stream ended."""
        held, self._held = self._held, None
        return bytes(held or b"")


class RemoteProcess(StreamedProcess):
    """What the SSH transports share: markers taken off, and the process group known for killing."""

    def __init__(self, marker: str, on_end: Callable[[RemoteProcess], None]) -> None:
        super().__init__()
        self._on_end = on_end
        self._preambles = Preamble(marker, self._on_pid), Preamble(marker, lambda _: None)
        self._started = asyncio.Event()
        self._group = 0

    def _on_pid(self, pid: int) -> None:
        self._group = pid
        self._started.set()

    def on_output(self, data: bytes, *, stderr: bool) -> None:
        stream = self.stderr if stderr else self.stdout
        self.on_data(stream, self._preambles[stderr].feed(data))

    def on_eof(self) -> None:
        """Both streams ended."""
        self._let_pass()
        for stream in (self.stdout, self.stderr):
            stream.finish()

    def _let_pass(self) -> None:
        """What was held back for a marker that does not come."""
        for stream, preamble in zip((self.stdout, self.stderr), self._preambles, strict=True):
            self.on_data(stream, preamble.finish())

    def on_closed(self, reason: str, *, cut: bool) -> None:
        # A command that ends before it is listened to closes without the end of its streams.
        self._let_pass()
        super().on_closed(reason, cut=cut)
        self._on_end(self)

    async def _kill_line(self) -> bytes:
        """Waits until the process group is known. Empty if the node named none."""
        await self._started.wait()
        return kill_line(self._group) if self._group > 1 else b""


P = TypeVar("P", bound=RemoteProcess)
_killing: set[asyncio.Future[None]] = set()


async def opened(opening: asyncio.Future[P], timeout_s: float) -> P:
    """The process, unless we stop waiting first: then it is killed as soon as it turns up.

    The request may be on its way already; whatever it starts must not outlive our interest.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(opening)
    except BaseException:
        opening.add_done_callback(_kill_late)
        raise


def _kill_late(opening: asyncio.Future[P]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        killing = asyncio.ensure_future(opening.result().kill())
        _killing.add(killing)
        killing.add_done_callback(_killing.discard)


def signal_number(name: str) -> int:
    """``KILL`` -> 9; a signal that this platform does not know is 99."""
    try:
        return signal.Signals[f"SIG{name.partition('@')[0]}"].value
    except KeyError:
        return UNKNOWN_SIGNAL
