"""SSH by paramiko, for sites whose servers asyncssh cannot talk to: the same contract from threads.

paramiko blocks. Each connection owns a bounded pool of threads: one thread for each process reads
its output and awaits its end, another writes its input while there is some. They post callbacks to
the event loop, which itself never waits for paramiko.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import paramiko

from orchestrator.adapters.transport.paramiko.paramiko_connect import ParamikoLink
from orchestrator.adapters.transport.ssh import failures
from orchestrator.adapters.transport.ssh.remote_command import (
    MAX_SESSIONS,
    REFUSED_PAUSE_S,
    RemoteProcess,
    await_opened,
    new_marker,
    remote_line,
    signal_number,
)
from orchestrator.adapters.transport.ssh.target import Target
from orchestrator.adapters.transport.streams import KILL_GRACE_S
from orchestrator.adapters.transport.transport import (
    CHUNK_BYTES,
    ChannelClosed,
    ConnectLimits,
    Process,
    Transport,
)
from orchestrator.core.base.command import Command
from orchestrator.core.base.outcome import Exited, Signalled

# Each session needs up to two threads, and some are to spare.
MAX_THREADS = 2 * MAX_SESSIONS + 6
MAX_POSTED_CHUNKS = 16
POLL_S = 0.1
CLOSE_TIMEOUT_S = 2.0


class ParamikoTransport(Transport):
    """One SSH connection: ``chain[-1]``, carried by the jump hosts' connections before it."""

    def __init__(
        self, node: str, target: Target, chain: Sequence[ParamikoLink], limits: ConnectLimits
    ) -> None:
        self.node = node
        self._target = target
        self._chain = chain
        self._link = chain[-1]
        self._limits = limits
        self._sessions: set[RemoteProcess] = set()
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix=f"ssh-{node}")
        self._watch = asyncio.create_task(self._watch_link())
        self._closed = False

    async def start(self, command: Command, *, timeout_s: float, has_input: bool = True) -> Process:
        marker = new_marker()
        line = remote_line(command, marker)
        if self._closed or not self._link.is_active():
            raise ChannelClosed(self._link.why_dead())
        if len(self._sessions) >= MAX_SESSIONS:
            raise failures.refused_session(
                self.node, self._target.endpoint, f"{MAX_SESSIONS} commands run already"
            )
        process = ParamikoProcess(
            self._link, self._threads, marker, self._sessions.discard, self._target.env
        )
        self._sessions.add(process)
        opening = asyncio.ensure_future(self._open(process, line, timeout_s, has_input=has_input))
        return await await_opened(opening, timeout_s, self.node, self._target.endpoint)

    async def _open(
        self, process: ParamikoProcess, line: bytes, timeout_s: float, *, has_input: bool
    ) -> ParamikoProcess:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._threads, process.open, line, timeout_s)
        except BaseException as error:
            self._sessions.discard(process)
            if isinstance(error, paramiko.ChannelException):
                raise failures.refused_session(
                    self.node, self._target.endpoint, error.text
                ) from error
            if isinstance(error, paramiko.SSHException | EOFError | OSError):
                raise ChannelClosed(str(error) or self._link.why_dead()) from error
            raise
        if not has_input:
            with contextlib.suppress(ChannelClosed):  # it may be over by now
                await process.close_stdin()
        return process

    def cut(self) -> bool:
        self._link.cut("we cut it")
        return True

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._watch.cancel()
        for link in reversed(self._chain):
            link.cut("we closed it")
        await asyncio.wait([self._watch], timeout=CLOSE_TIMEOUT_S)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _watch_link(self) -> None:
        """Ask for signs of life. paramiko's own keepalive expects no answer: it notices nothing."""
        loop = asyncio.get_running_loop()
        while self._link.is_active():
            await asyncio.sleep(self._limits.keepalive_interval_s)
            asking = loop.run_in_executor(
                self._threads, self._link.global_request, "keepalive@openssh.com"
            )
            asking.add_done_callback(_retrieve_result)
            done, _ = await asyncio.wait([asking], timeout=self._limits.silence_s)
            if not done:
                self._link.cut(f"no sign of life for {self._limits.silence_s:g} s")


def _retrieve_result(asking: asyncio.Future[paramiko.Message | None]) -> None:
    if not asking.cancelled():
        asking.exception()  # a dead link shows in is_active


class ParamikoProcess(RemoteProcess):
    """A channel, its reading thread, and now and then a writing one."""

    def __init__(
        self,
        link: ParamikoLink,
        threads: ThreadPoolExecutor,
        marker: str,
        on_end: Callable[[RemoteProcess], None],
        env: Sequence[tuple[str, str]],
    ) -> None:
        super().__init__(marker, on_end)
        self._env = env
        self._loop = asyncio.get_running_loop()
        self._link = link
        self._threads = threads
        self._channel: paramiko.Channel
        self._room = threading.Event()
        self._room.set()
        self._posted = threading.Semaphore(MAX_POSTED_CHUNKS)

    # In the pool's threads ----------------------------------------------------------------------

    def open(self, line: bytes, timeout_s: float) -> None:
        """Open the channel and start the command."""
        self._channel = self._link.open_session(timeout=timeout_s)
        self._channel.settimeout(POLL_S)
        self._threads.submit(self._pump)
        for name, value in self._env:
            self._channel.set_environment_variable(os.fsencode(name), os.fsencode(value))
        self._channel.exec_command(line)

    def _pump(self) -> None:
        """Carry output to the event loop up to its end, then report the end of the process."""
        try:
            self._carry_all()
            while not (self._channel.status_event.wait(POLL_S) or self._channel.closed):
                pass
        except (paramiko.SSHException, EOFError, OSError):
            pass  # the link died under a read; what it died of is known below
        self._report()
        cut = not (self._link.is_active() and self._ended_by_server())
        reason = self._link.why_dead() if cut else "the channel closed without an exit status"
        self._post(partial(self.on_closed, reason, cut=cut))
        with contextlib.suppress(paramiko.SSHException, EOFError, OSError):
            self._channel.close()

    def _ended_by_server(self) -> bool:
        """Whether the server closed the channel. A link that breaks closes it as well, before the
        link itself counts as inactive, and the exit status may have come before the last output.
        """
        return bool(self._channel.eof_received) or self._channel in self._link.closed_by_server

    def _carry_all(self) -> None:
        channel = self._channel
        poller = select.poll()
        poller.register(channel.fileno(), select.POLLIN)
        while not (channel.eof_received or channel.closed):
            poller.poll(POLL_S * 1000)
            self._carry()
            if channel.status_event.is_set():
                self._report()
        self._carry()
        if channel.eof_received:
            self._post(self.on_eof)

    def _carry(self) -> None:
        channel = self._channel
        while channel.recv_ready() or channel.recv_stderr_ready():
            while not self._room.wait(POLL_S):
                pass
            for is_stderr, is_ready, receive in (
                (False, channel.recv_ready, channel.recv),
                (True, channel.recv_stderr_ready, channel.recv_stderr),
            ):
                if is_ready():
                    self._posted.acquire()
                    self._post(partial(self._deliver, receive(CHUNK_BYTES), is_stderr))

    def _report(self) -> None:
        name = self._link.exit_signals.pop(self._channel.get_id(), None)
        if name is not None:
            self._post(partial(self.on_exit, Signalled(signal_number(name))))
        elif self._channel.exit_status >= 0:
            self._post(partial(self.on_exit, Exited(self._channel.exit_status & 0xFF)))

    def _transmit(self, data: bytes) -> None:
        try:
            while data and not self._channel.closed:
                with contextlib.suppress(TimeoutError):  # the window is shut: look again
                    data = data[self._channel.send(data) :]
        except (paramiko.SSHException, EOFError, OSError):
            pass  # the reading thread reports the link's end
        finally:
            self._post(self.resume_writing)

    def _kill_remotely(self, line: bytes, timeout_s: float) -> None:
        """Run a line in a session of its own, as soon as the server grants one."""
        deadline_s = time.monotonic() + timeout_s
        with (
            self._link.killing,
            contextlib.suppress(paramiko.SSHException, EOFError, OSError),
        ):
            while (channel := self._granted_session(timeout_s)) is None:
                if time.monotonic() > deadline_s:
                    return
                time.sleep(REFUSED_PAUSE_S)
            channel.settimeout(timeout_s)
            channel.exec_command(line)
            channel.recv(1)  # its end
            channel.close()

    def _granted_session(self, timeout_s: float) -> paramiko.Channel | None:
        try:
            return self._link.open_session(timeout=timeout_s)
        except paramiko.ChannelException:
            return None

    def _post(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(callback)

    # On the event loop --------------------------------------------------------------------------

    def _deliver(self, data: bytes, is_stderr: bool) -> None:
        self._posted.release()
        self.on_output(data, stderr=is_stderr)

    def on_closed(self, reason: str, *, cut: bool) -> None:
        super().on_closed(reason, cut=cut)
        self._room.set()

    def _submit(self, act: Callable[[], None]) -> None:
        try:
            self._threads.submit(act)
        except RuntimeError as error:
            raise BrokenPipeError("the transport is closed") from error

    def _send(self, data: bytes) -> None:
        if self._channel.closed:
            raise BrokenPipeError
        self.pause_writing()
        self._submit(partial(self._transmit, data))

    def _send_eof(self) -> None:
        self._submit(self._channel.shutdown_write)

    def _adjust_flow(self) -> None:
        if not self._killed and (self.stdout.full or self.stderr.full):
            self._room.clear()
        else:
            self._room.set()

    async def _send_kill(self) -> None:
        if line := await self._kill_line():
            with contextlib.suppress(OSError):
                self._submit(partial(self._kill_remotely, line, KILL_GRACE_S))

    def _close_channel(self) -> None:
        with contextlib.suppress(OSError):
            self._submit(self._channel.close)
