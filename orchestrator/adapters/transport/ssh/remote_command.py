"""The one line that SSH hands to a node's login shell, and what comes back before the command.

Whatever the login shell is (bash, dash, fish, ...), it only starts ``sh`` with quoted words. That
``sh`` first prints a marker on both streams: what precedes it is the noise of start-up files and
banners, not the command's output. No marker, no command: a start-up file that ends or replaces the
shell swallows the line, and the shell then exits with 0 or waits for input, so neither an exit
status nor a pause says that the command ran. Nothing is written to its input before that.
The marker carries the process id, which is also the process group: the SSH signal request is
refused by many servers (OpenSSH, when root logs in), so killing needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import Callable
from typing import TypeVar

from orchestrator.adapters.transport.ssh import failures
from orchestrator.adapters.transport.ssh.preamble import Preamble
from orchestrator.adapters.transport.streams import StreamedProcess
from orchestrator.adapters.transport.transport import ChannelClosed
from orchestrator.core.base.command import Command, Secret, render_shell, reveal_secret
from orchestrator.core.base.outcome import Lost, Outcome
from orchestrator.core.model.inventory import SshEndpoint

# sshd grants ten sessions to a connection (MaxSessions); the tenth is kept for killing.
MAX_SESSIONS = 9
# A session that ended occupies its place in sshd for a moment longer.
REFUSED_PAUSE_S = 0.02
# Linux limits one argument of execve, and the login shell gets the whole line as one.
MAX_LINE_BYTES = 128 * 1024 - 1
MAX_WORDS = 500
# So long after a shell's exit status its last output may still come.
LATE_OUTPUT_S = 2.0
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
    pairs = tuple(f"{name}={reveal_secret(value)}" for name, value in command.env.items())
    program = command.argv[0]
    if pairs and "=" in program:  # env would take it for one more pair
        return ("env", "--", *pairs, "sh", "-c", 'exec "$@"', "sh", *command.argv)
    if pairs or program.startswith("-"):
        return ("env", "--", *pairs, *command.argv)
    return command.argv


class RemoteProcess(StreamedProcess):
    """What the SSH transports share: a command counts as started when its marker has come, markers
    are taken off, and the process group is known for killing.
    """

    def __init__(self, marker: str, on_end: Callable[[RemoteProcess], None]) -> None:
        super().__init__()
        self._on_end = on_end
        self._preambles = Preamble(marker, self._on_pid), Preamble(marker, lambda _: None)
        self._started = asyncio.Event()
        self._settled = asyncio.Event()  # started, or known not to start any more
        self._cut = False
        self._group = 0

    async def until_started(self, timeout_s: float) -> bool:
        """Whether the command runs, as soon as that is known, within ``timeout_s``.

        Raises :class:`ChannelClosed` when the link was cut before that.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()
        if self._cut and not self._started.is_set():
            assert isinstance(self.outcome, Lost)
            raise ChannelClosed(self.outcome.reason)
        return self._started.is_set()

    def words_instead(self) -> str:
        """The end of what came in place of the marker, in one line."""
        said = b" ".join(preamble.tail() for preamble in reversed(self._preambles))
        text = "".join(c if c.isprintable() else " " for c in said.decode(errors="replace"))
        return " ".join(text.split())[-MAX_WORDS:]

    def _on_pid(self, pid: int) -> None:
        self._group = pid
        self._started.set()
        self._settled.set()

    def on_output(self, data: bytes, *, stderr: bool) -> None:
        stream = self.stderr if stderr else self.stdout
        self.on_data(stream, self._preambles[stderr].feed(data))
        if self._preambles[False].overflowed:
            self._settled.set()

    def on_exit(self, outcome: Outcome) -> None:
        super().on_exit(outcome)
        # sshd may send the status before the last of the output, and a marker is output.
        asyncio.get_running_loop().call_later(LATE_OUTPUT_S, self._settled.set)

    def on_eof(self) -> None:
        """Both streams ended."""
        self._release()
        for stream in (self.stdout, self.stderr):
            stream.finish()

    def _release(self) -> None:
        """Let pass what waits for a marker on a stream that the command has replaced."""
        if self._started.is_set():
            self.on_data(self.stderr, self._preambles[True].release())

    def on_closed(self, reason: str, *, cut: bool) -> None:
        # A command that ends before it is listened to closes without the end of its streams.
        self._release()
        self._cut = cut
        super().on_closed(reason, cut=cut)
        self._settled.set()
        self._on_end(self)

    async def _kill_line(self) -> bytes:
        """Waits until the process group is known. Empty if the node named none."""
        await self._started.wait()
        return kill_line(self._group) if self._group > 1 else b""


P = TypeVar("P", bound=RemoteProcess)
_killing: set[asyncio.Future[None]] = set()


async def await_opened(
    opening: asyncio.Future[P], timeout_s: float, node: str, endpoint: SshEndpoint
) -> P:
    """The process, once its command runs, unless we stop waiting first: then it is killed as soon
    as it turns up.

    The request may be on its way already; whatever it starts must not outlive our interest.
    Raises ``NotStarted``.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            process = await asyncio.shield(opening)
        if not await process.until_started(deadline - loop.time()):
            said = process.words_instead()
            raise failures.not_started(node, endpoint, process.outcome, timeout_s, said)
    except BaseException:
        opening.add_done_callback(_kill_late)
        raise
    return process


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
