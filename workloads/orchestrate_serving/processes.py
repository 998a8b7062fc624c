"""Server processes of this node: started, checked, warmed up, watched, and gone at the end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from . import checks
from .failures import ENDED, LEFT_OVER, NO_API, NOT_STARTED
from .settings import (
    BUILTIN,
    EngineError,
    EngineSettings,
    SettingsError,
    Start,
    command_of,
    environment_of,
    plan_starts,
    preset_of,
)

MARKER = "ORCHESTRATE_ENGINE_ID"
POLL_S = 0.1
KILL_S = 10.0
TAIL_BYTES = 16 * 1024
TAIL_LINES = 12
PORT_ATTEMPTS = 3
PORT_TAKEN = ("address already in use", "errno 98", "couldn't bind", "cannot assign requested")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A server that answers: ``base_url`` without a slash at its end, ``model`` as requests name
    it, the GPUs that it has, and its process. ``startup_s``: from its start to healthy.
    """

    index: int
    base_url: str
    model: str
    gpus: tuple[str, ...]
    pid: int
    log: Path
    startup_s: float


class EngineProcess:
    """One server, with a process group of its own and a mark that its descendants inherit."""

    def __init__(self, settings: EngineSettings, start: Start, logs: Path, port: int) -> None:
        self.settings = settings
        self.start = start
        self.port = port
        self.log = logs / f"engine-{start.index}.log"
        self._asked = False
        self._mark = uuid.uuid4().hex
        self.command = command_of(settings, start, model=settings.model, port=port)
        self._begin()

    @property
    def name(self) -> str:
        return f"engine {self.start.index} ({self.settings.engine})"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def url(self) -> str:
        return f"http://{self.settings.host}:{self.port}"

    @property
    def uptime_s(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._began

    def exit_status(self) -> int | None:
        """Its status if it has ended; negative for a signal."""
        return self._process.poll()

    def last_lines(self) -> list[str]:
        """The end of what it wrote, bounded."""
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
        return []

    def is_healthy(self) -> bool:
        """Whether its health check answers."""
        path = self.settings.health or preset_of(self.settings).health
        return checks.is_healthy(self.settings.host, self.port, path)

    def lost_its_port(self) -> bool:
        """Whether somebody else took its port between the choice and its start."""
        text = "\n".join(self.last_lines()).lower()
        return not self.settings.port and any(words in text for words in PORT_TAKEN)

    def again(self, port: int) -> EngineProcess:
        """The same engine on another port; what is left of this process is stopped first."""
        self.stop()
        return EngineProcess(self.settings, self.start, self.log.parent, port)

    def death(self, id: str) -> EngineError:
        """What is said when it has ended by itself."""
        status = self.exit_status() or 0
        how = f"status {status}" if status >= 0 else f"signal {_signal_name(-status)}"
        return self.failure(f"ended with {how} {self.uptime_s:.1f} s after its start", id)

    def failure(self, what: str, id: str) -> EngineError:
        """What happened, with the last lines of the log."""
        lines = "".join(f"\n  | {line}" for line in self.last_lines())
        return EngineError(f"{self.name} {what}; log {self.log}:{lines or ' (empty)'}", id)

    def ask_to_end(self) -> None:
        """SIGTERM to all of it, once, without waiting: servers take a second one as an order to
        drop what they are doing.
        """
        if not self._asked:
            self._asked = True
            self._signal(signal.SIGTERM)

    def stop(self) -> None:
        """SIGTERM, SIGKILL at the deadline, for the whole group and all that it started.

        Raises :class:`EngineError` naming what is left then.
        """
        self.ask_to_end()
        if _wait_until(lambda: not self.members(), self.settings.stop_s):
            return
        self._signal(signal.SIGKILL)
        if _wait_until(lambda: not self.members(), KILL_S):
            return
        left = f"{self.name}: still there after SIGKILL: pids {self.members()}"
        raise EngineError(left, LEFT_OVER)

    def members(self) -> list[int]:
        """Live processes of its group, and others that carry its mark."""
        self._process.poll()  # reaped: a zombie is no live process
        return sorted({*_marked(self._mark), *_group(self._process.pid)})

    def _begin(self) -> None:
        environment = environment_of(self.settings, self.start, os.environ)
        environment[MARKER] = self._mark
        self._began = time.monotonic()
        with self.log.open("ab") as log:
            try:
                self._process = subprocess.Popen(
                    self.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise EngineError(
                    f"{self.name} cannot be started: {self.command[0]}: {error.strerror}; install "
                    f"it on this node, or choose engine {BUILTIN}",
                    NOT_STARTED,
                ) from error

    def _signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
        for pid in self.members():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


class RunningEngines(Sequence[Engine]):
    """Engines that answer, in the order of their GPUs."""

    def __init__(self, processes: Sequence[EngineProcess], engines: Sequence[Engine]) -> None:
        self._processes = tuple(processes)
        self._engines = tuple(engines)

    def __getitem__(self, index: int) -> Engine:  # type: ignore[override]
        return self._engines[index]

    def __len__(self) -> int:
        return len(self._engines)

    def check(self) -> None:
        """Raise :class:`EngineError` if an engine has ended; cheap, to be called often."""
        for process in self._processes:
            if process.exit_status() is not None:
                raise process.death(ENDED)


@contextmanager
def start_engines(settings: EngineSettings, logs: Path) -> Iterator[RunningEngines]:
    """Engines that are healthy and warmed up; at the end of the block none of their processes is
    left. Logs are ``engine-N.log`` in ``logs``.

    Raises :class:`SettingsError` before anything is started, and :class:`EngineError` if an engine
    does not become healthy in time; then those that did are stopped, too.
    """
    starts = plan_starts(settings)
    ports = [_port(settings, start) for start in starts]
    logs.mkdir(parents=True, exist_ok=True)
    processes: list[EngineProcess] = []
    try:
        for start, port in zip(starts, ports, strict=True):
            processes.append(EngineProcess(settings, start, logs, port))
        deadline = time.monotonic() + settings.ready_s
        engines = [_await(processes, place, deadline) for place in range(len(processes))]
        yield RunningEngines(processes, engines)
    finally:
        _stop_all(processes)


def _await(processes: list[EngineProcess], place: int, deadline: float) -> Engine:
    """The engine at this place once it answers. One whose port was taken is started on another."""
    taken = 0
    while True:
        process = processes[place]
        if process.exit_status() is not None and process.lost_its_port() and taken < PORT_ATTEMPTS:
            taken += 1
            processes[place] = process.again(_free_port(process.settings.host))
            continue
        for each in processes[: place + 1]:
            if each.exit_status() is not None:
                raise each.death(NOT_STARTED)
        if process.is_healthy():
            return _answering(process, deadline)
        if time.monotonic() >= deadline:
            waited = f"{process.settings.ready_s:g} s"
            what = f"did not become healthy within {waited} ({process.url})"
            raise process.failure(what, NOT_STARTED)
        time.sleep(POLL_S)


def _answering(process: EngineProcess, deadline: float) -> Engine:
    """The healthy engine with the model that it serves, and after its first completion."""
    settings, startup_s = process.settings, process.uptime_s
    try:
        model = checks.served_model(settings.host, process.port, settings.model)
        if settings.warm_up:
            left_s = max(checks.ANSWER_S, deadline - time.monotonic())
            checks.warm_up(settings.host, process.port, model, left_s)
    except checks.NoAnswer as error:
        if process.exit_status() is not None:
            raise process.death(NOT_STARTED) from error
        raise process.failure(f"is no OpenAI-compatible server: {error}", NO_API) from error
    return Engine(
        index=process.start.index,
        base_url=process.url,
        model=model,
        gpus=process.start.gpus,
        pid=process.pid,
        log=process.log,
        startup_s=startup_s,
    )


def _stop_all(processes: Sequence[EngineProcess]) -> None:
    """All are asked before any is waited for; what is left of any is raised at the end."""
    for process in processes:
        process.ask_to_end()
    left = []
    for process in processes:
        try:
            process.stop()
        except EngineError as error:
            left.append(str(error))
    if left:
        raise EngineError("; ".join(left), LEFT_OVER)


def _port(settings: EngineSettings, start: Start) -> int:
    """The port of this engine. Raises :class:`SettingsError` for a chosen one that is taken."""
    if not settings.port:
        return _free_port(settings.host)
    port = settings.port + start.index
    with _listening_socket() as probe:
        try:
            probe.bind((settings.host, port))
        except OSError as error:
            raise SettingsError(
                f"port {port} of {settings.host} cannot be used: {error.strerror}; choose another "
                "port, or 0 for any free one"
            ) from error
    return port


def _free_port(host: str) -> int:
    with _listening_socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def _listening_socket() -> socket.socket:
    """As servers set theirs up: connections of an earlier server that linger do no harm."""
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return probe


def _marked(mark: str) -> Iterator[int]:
    """Processes that inherited the mark, also outside of the group; none where /proc is absent."""
    wanted = f"{MARKER}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)


def _group(leader: int) -> list[int]:
    """The leader, if anything of its process group can be signalled."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return []
    except PermissionError:  # there, and of another user
        return [leader]
    return [leader]


def _wait_until(done: Callable[[], bool], limit_s: float) -> bool:
    deadline = time.monotonic() + limit_s
    while not done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
