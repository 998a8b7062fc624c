"""Runs a node's ranks for its Ray actor, each under the rank shim.

A plain process between actor and ranks: Ray's worker has threads and signal handlers of its own,
may be killed at any time, and kills its children when it ends, so that this is none of them.
Standard output: one line, the exit codes. When standard input ends, so did the actor, or the world:
what still runs is told to end, and gets its grace.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import subprocess
import sys
from contextlib import suppress

sys.path.insert(0, os.path.abspath(__file__).rsplit(os.sep, 4)[0])

from orchestrator.node_agent.base.node_layout import AttemptLayout
from orchestrator.node_agent.process.cgroups import ControlGroup
from orchestrator.node_agent.rank_env.ray_options import Options
from orchestrator.node_agent.rank_env.ray_record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

POLL_S = 0.05
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class RayRanks:
    """The ranks of one node from start to end."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._processes: list[subprocess.Popen[bytes]] = []
        self._stop = False
        self._told = False
        self._held = True

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True

    def run(self) -> list[int]:
        """The exit code of each; negative for a signal."""
        for variables in self._options.ranks:
            if not self._stop:
                self._start(variables)
        while self._running:
            self._wait()
            if self._stop or (self._failed and not self._options.independent):
                self._tell()
        return [process.wait() for process in self._processes]

    def _start(self, variables: dict[str, str]) -> None:
        environment = {**os.environ, **variables}
        if self._options.master is not None:
            environment["MASTER_ADDR"] = self._options.master
            environment["MASTER_PORT"] = str(self._options.master_port)
        self._processes.append(
            subprocess.Popen(
                self._options.program,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,  # a shim writes a rank's output to the rank's own files
            )
        )

    @property
    def _running(self) -> bool:
        return any(process.poll() is None for process in self._processes)

    @property
    def _failed(self) -> bool:
        return any(process.poll() for process in self._processes)

    def _tell(self) -> None:
        """Once; whoever does not listen is the supervisor's to kill."""
        if self._told:
            return
        self._told = True
        for process in self._processes:
            if process.poll() is None:
                process.terminate()

    def _wait(self) -> None:
        """A moment, or until standard input ends."""
        readable, _, _ = select.select([0] if self._held else [], [], [], POLL_S)
        if readable and not os.read(0, 4096):
            self._held, self._stop = False, True

    def hold(self) -> None:
        """Stay until the actor lets go: Ray's part of this node must outlive the answer."""
        while self._held and not self._stop:
            self._wait()


def become_like(pid: int, attempt: AttemptLayout) -> None:
    """As the node's own process is, as far as one may: somebody else's Ray gives its workers other
    limits, the last place among processes and the first one when memory runs out.
    """
    group = ControlGroup.recorded(attempt)
    with suppress(OSError):
        if group is not None:
            group.enter()
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, pid))
    with suppress(OSError), open(f"/proc/{pid}/oom_score_adj") as theirs:
        with open("/proc/self/oom_score_adj", "w") as ours:
            ours.write(theirs.read())
    for limit in (resource.RLIMIT_MEMLOCK, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE):
        with suppress(OSError, ValueError):
            resource.setrlimit(limit, resource.prlimit(pid, limit))


def main() -> None:
    """The actor gives the environment of the node's own process, where it starts."""
    if os.fork():
        os._exit(0)
    for number in signal.valid_signals():  # what Ray's worker ignores, ranks must not inherit
        if signal.getsignal(number) is signal.SIG_IGN and number != signal.SIGPIPE:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    options = Options(sys.argv[1:])
    attempt = AttemptLayout(os.environ["ORCHESTRATE_ATTEMPT_DIR"])
    become_like(options.like, attempt)
    ranks = RayRanks(options)
    for number in ENDING:
        signal.signal(number, ranks.stop)
    record = Record.of_attempt(attempt.root)
    record.begin()
    codes = ranks.run()
    record.end(codes)
    try:
        os.write(1, json.dumps(codes).encode() + b"\n")
    except BrokenPipeError:
        return
    ranks.hold()


if __name__ == "__main__":
    main()
