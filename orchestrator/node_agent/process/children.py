"""The processes that a supervisor starts itself: launchers, and ranks without a launcher."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress

from orchestrator.node_agent.process.eventlog import last_words
from orchestrator.node_agent.process.rank_shim import (
    LAST_WORDS_BYTES,
    bind_rank,
    die_with_parent,
    execute_program,
    reserve_bytes,
    start_time,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import NoReturn

    from orchestrator.node_agent.process.cgroups import ControlGroup

APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC


class Child:
    """A process that is our own child, so that its pid stays its own until we reap it.

    Signals that are ``blocked`` wait until the program asks for them.
    """

    def __init__(
        self, label: str, rank: int | None, logs: str, blocked: Iterable[int] = ()
    ) -> None:
        self.label = label
        self.rank = rank
        self.pid = 0
        self.start_time = 0
        self.status: int | None = None
        self.ended_at = 0.0
        self.told = False
        self._logs = logs
        self._blocked = blocked

    @property
    def running(self) -> bool:
        return self.pid > 0 and self.status is None

    @property
    def outcome(self) -> dict[str, int]:
        assert self.status is not None
        return outcome_of(self.status)

    def start(
        self, argv: list[str], env: Mapping[str, str], cwd: str, group: ControlGroup | None
    ) -> None:
        """Start in a session of its own, in ``group``; its output goes straight into its logs."""
        supervisor = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(argv, env, cwd, group, supervisor)
        self.start_time = start_time(self.pid)

    def _become(
        self,
        argv: list[str],
        env: Mapping[str, str],
        cwd: str,
        group: ControlGroup | None,
        supervisor: int,
    ) -> NoReturn:
        try:
            os.setsid()
            die_with_parent(supervisor, signal.SIGKILL)
            if group is not None:
                with suppress(OSError):  # it did admit; without it, the marker still tells
                    group.enter()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(os.open(self.log("out"), APPEND, 0o600), 1)
            os.dup2(os.open(self.log("err"), APPEND, 0o600), 2)
            reserve_bytes(2, LAST_WORDS_BYTES)
            os.environ.clear()
            os.environ.update(env)
            os.chdir(cwd)
            if self.rank is not None:
                bind_rank(env, int(env.get("LOCAL_RANK", "0")))
            execute_program(argv, self._blocked)
        except OSError as error:
            os.write(2, f"cannot start in {cwd!r}: {error.strerror}\n".encode(errors="replace"))
        finally:
            os._exit(126)

    def log(self, end: str) -> str:
        return os.path.join(self._logs, f"{self.label}.{end}")

    def terminate(self) -> None:
        """TERM to the process alone: what it started is its own to end, within the grace.

        A stopped process hears it only when it goes on.
        """
        if self.running:
            self.told = True
            os.kill(self.pid, signal.SIGTERM)
            os.kill(self.pid, signal.SIGCONT)

    def kill_group(self) -> None:
        if self.running:
            self.told = True
            os.killpg(self.pid, signal.SIGKILL)

    def reaped(self, status: int) -> None:
        self.status = status
        self.ended_at = time.time()

    def last_line(self) -> str:
        return last_words(self.log("err"), self.log("out"), self.outcome)


def outcome_of(status: int) -> dict[str, int]:
    """A wait status as it is written in records."""
    if os.WIFSIGNALED(status):
        return {"signalled": os.WTERMSIG(status)}
    return {"exited": os.WEXITSTATUS(status)}


def reap_children() -> dict[int, int]:
    """Wait statuses of all children, own and adopted, that have ended."""
    ended: dict[int, int] = {}
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if not pid:
            return ended
        ended[pid] = status
