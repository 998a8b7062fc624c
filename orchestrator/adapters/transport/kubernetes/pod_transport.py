"""A pod as a node: every command is a ``kubectl exec`` of the user's own kubectl.

The command's words travel as they are: no shell is between. How it ended is read from its streams
(``ending.py``), never from kubectl, which cannot tell a broken stream from a success.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import Awaitable, Callable, Iterator

from orchestrator.adapters.kubernetes.kubectl import kubectl_environment, kubectl_program
from orchestrator.adapters.kubernetes.pod_programs import pod_program
from orchestrator.adapters.transport.kubernetes.ending import EndingFilter
from orchestrator.adapters.transport.ssh.remote_command import RemoteProcess, new_marker
from orchestrator.adapters.transport.streams import KILL_GRACE_S
from orchestrator.adapters.transport.subprocess_pipes import SubprocessPipes
from orchestrator.adapters.transport.transport import (
    ChannelClosed,
    ConnectLimits,
    NotStarted,
    Process,
    Transport,
)
from orchestrator.core.base.command import Command, Secret, reveal_secret
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.base.outcome import describe_outcome
from orchestrator.core.model.pod_place import CONTAINER, WORK_DIR, PodPlace

# Each command is a process here, with some tens of MB, and a stream through the API server.
MAX_COMMANDS = 16
# In the address of one request, of whose head the API server takes 1 MiB.
MAX_LINE_BYTES = 512 * 1024
WORD_BYTES = 64 * 1024
MAX_WORDS = 500
KILL_S = 10.0
MIN_PAUSE_S, MIN_COUNT = 3.0, 3


class PodTransport(Transport):
    """Commands in the container of one pod. ``pod``: its name."""

    def __init__(self, node: str, place: PodPlace, pod: str, limits: ConnectLimits) -> None:
        self.node = node
        self._place = place
        self._pod = pod
        self._running: set[RemoteProcess] = set()
        self._closed = False
        # Through an API server signs of life take longer than over a connection of our own.
        self._pause_s = max(limits.keepalive_interval_s, MIN_PAUSE_S)
        self._silence_s = self._pause_s * (max(limits.keepalive_count, MIN_COUNT) + 1)
        self._watch = asyncio.create_task(self._watch_commands())

    async def start(self, command: Command, *, timeout_s: float, has_input: bool = True) -> Process:
        marker = new_marker()
        words = list(self._words(command, marker))
        if self._closed:
            raise ChannelClosed("the transport is closed")
        if len(self._running) >= MAX_COMMANDS:
            raise self._refused(f"{MAX_COMMANDS} commands run already")
        process = PodProcess(marker, self._running.discard, self._kill_group)
        self._running.add(process)
        try:
            await process.spawn(self.exec_argv(*words, has_input=has_input))
            if not await process.until_started(timeout_s):
                raise self._not_started(process, timeout_s)
        except BaseException:
            await process.kill()
            raise
        if not has_input:
            await process.close_stdin()
        return process

    def _words(self, command: Command, marker: str) -> Iterator[str]:
        """What the container executes. Raises ``ValueError``: a secret, or too much."""
        if any(isinstance(value, Secret) for value in command.env.values()):
            raise ValueError("a secret must travel over standard input, not the environment")
        pairs = [f"{name}={reveal_secret(value)}" for name, value in command.env.items()]
        words = (command.cwd or "", str(len(pairs)), *pairs, *command.argv)
        packed = base64.urlsafe_b64encode(b"\0".join(map(os.fsencode, words))).decode()
        if len(packed) > MAX_LINE_BYTES:
            what = f"the command line has {len(packed)} bytes in Base64, {MAX_LINE_BYTES} may pass"
            raise ValueError(f"{what}: send what is long over standard input")
        program = pod_program("pod_command")
        yield from (self._place.python, "-I", "-S", "-c", program, marker)
        yield from (f"{self._pause_s:g}", WORK_DIR)
        yield from (packed[at : at + WORD_BYTES] for at in range(0, len(packed), WORD_BYTES))

    def exec_argv(self, *words: str, has_input: bool = True) -> list[str]:
        """The command line of kubectl that has the container execute ``words``."""
        _, *options = self._place.kubectl
        # Without a bound of its own kubectl waits for as long as the command runs.
        stdin = ("--stdin",) if has_input else ()
        where = (self._pod, f"--container={CONTAINER}", "--quiet", *stdin, "--")
        return [kubectl_program(), *options, "exec", *where, *words]

    async def _kill_group(self, group: int) -> None:
        """Bounded by the caller."""
        kill = "import os,sys;os.killpg(int(sys.argv[1]),9)"
        argv = self.exec_argv(
            self._place.python, "-I", "-S", "-c", kill, str(group), has_input=False
        )
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=kubectl_environment(),
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(KILL_S):
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()

    def _refused(self, why: str) -> NotStarted:
        return NotStarted(
            "the command was not started in the pod",
            id="OR-KUBE-014",
            where=self.node,
            why=why,
            remedy=f"{self._place.command('auth', 'can-i', 'create', 'pods/exec')}; "
            f"{self._place.command('exec', self._pod, '--', self._place.python, '-V')}",
        )

    def _not_started(self, process: RemoteProcess, after_s: float) -> NotStarted:
        said = process.words_instead() or f"nothing was heard of it within {after_s:.3g} s"
        outcome = process.outcome
        why = f"kubectl exec {describe_outcome(outcome)}: {said}" if outcome else said
        error = self._refused(why[:MAX_WORDS])
        error.outcome = outcome
        return error

    def cut(self) -> bool:
        for process in list(self._running):
            assert isinstance(process, PodProcess)
            process.drop("we cut it")
        return True

    async def _watch_commands(self) -> None:
        while True:
            await asyncio.sleep(self._pause_s)
            now = asyncio.get_running_loop().time()
            for process in list(self._running):
                assert isinstance(process, PodProcess)
                if process.silent_since(now) >= self._silence_s:
                    process.drop(f"no sign of life for {self._silence_s:g} s")

    async def close(self) -> None:
        self._closed = True
        self._watch.cancel()
        await asyncio.gather(*(process.kill() for process in list(self._running)))


# Kills that are under way.
_killing: set[asyncio.Future[None]] = set()


class PodProcess(RemoteProcess, SubprocessPipes):
    """A command in a pod, and the kubectl that it is reached through."""

    def __init__(
        self,
        marker: str,
        on_end: Callable[[RemoteProcess], None],
        kill_group: Callable[[int], Awaitable[None]],
    ) -> None:
        super().__init__(marker, on_end)
        self._endings = {1: EndingFilter(marker), 2: EndingFilter(marker)}
        self._kill_group = kill_group
        self._why = ""
        self._heard_at = 0.0
        self._departed = asyncio.Event()  # kubectl

    async def spawn(self, argv: list[str]) -> None:
        """Start kubectl. Raises ``OSError``."""
        await asyncio.get_running_loop().subprocess_exec(
            lambda: self, *argv, env=kubectl_environment(), start_new_session=True
        )

    def drop(self, why: str) -> None:
        """End kubectl at once: the command in the pod hears nothing more of us."""
        self._why = why
        if self._transport is not None and self._transport.get_returncode() is None:
            self._transport.kill()

    def silent_since(self, now: float) -> float:
        """Seconds without a sign of life; 0 before it started, and while we do not listen."""
        if self._paused or not self._started.is_set() or self.outcome is not None:
            self._heard_at = now
        return now - self._heard_at

    # asyncio's callbacks ----------------------------------------------------------------------

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        stderr = fd == 2
        self._heard_at = asyncio.get_running_loop().time()
        passed = self._preambles[stderr].feed(data)
        self.on_data(self.stderr if stderr else self.stdout, self._endings[fd].feed(passed))
        outcomes = [ending.outcome for ending in self._endings.values()]
        if None not in outcomes:
            assert outcomes[0] is not None
            self.on_exit(outcomes[0])
            self.on_eof()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        del exc
        if fd in self._endings:
            stream = self.stderr if fd == 2 else self.stdout
            self.on_data(stream, self._endings[fd].release())
            if self._endings[fd].over:
                stream.finish()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._transport:
            self._transport.close()
        self._departed.set()
        complete = all(ending.over for ending in self._endings.values())
        why = self._why or "the stream through the API server ended"
        # Before the command began it is kubectl that has to say why: no link was there to be cut.
        self.on_closed(why, cut=self._started.is_set() and not complete)

    async def kill(self) -> None:
        await super().kill()
        if self._transport is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KILL_GRACE_S):
                    await self._departed.wait()

    # StreamedProcess' hooks -------------------------------------------------------------------

    async def _send_kill(self) -> None:
        await self._started.wait()
        if self._group > 1:
            killing = asyncio.ensure_future(self._attempt_kill(self._group))
            _killing.add(killing)
            killing.add_done_callback(_killing.discard)
            await asyncio.shield(killing)  # it lasts when our patience does not

    async def _attempt_kill(self, group: int) -> None:
        """Whatever it fails of, the pod's agent and its lease are what is left to end the group."""
        with contextlib.suppress(OSError, TimeoutError, PreflightError):
            await self._kill_group(group)

    def _close_channel(self) -> None:
        self.drop("it was killed")
