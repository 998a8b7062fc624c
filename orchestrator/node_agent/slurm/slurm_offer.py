"""Stands on a node for the launcher that Slurm starts there, so that its supervisor can own it.

``python3 -I -S slurm_offer.py NAME NODE [--hold PORT] -- argv``: offers ``argv``, with this
process's environment, directory and output, to the task of the Slurm job ``NAME`` (see
``slurm_task.py``), passes TERM on, and ends as the launcher ended. ``PORT`` is kept from others
for as long as the job waits in the queue.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time

sys.path.insert(0, os.path.abspath(__file__).rsplit(os.sep, 4)[0])

from orchestrator.node_agent.process.rank_shim import DEFAULT_GRACE_S, GRACE, end_alike
from orchestrator.node_agent.slurm.slurm_jobs import find_time_left, job_ending
from orchestrator.node_agent.slurm.slurm_task import Lines, Wake, address_of, peer_uid
from orchestrator.node_agent.slurm.slurm_tools import SlurmError, signals_whole_trees

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

ENDED_BY_SLURM = "OR-SLURM-005"
BACKLOG = 16
# Before Slurm's time limit, beside the grace; never more than a part of the time that was left.
AHEAD_S = 5.0
LARGEST_PART = 0.25
ASK_AGAIN_S = 60.0
LONGEST_WAIT_S = 3600.0


class TimeLimit:
    """When ranks are asked to end, so that they have their grace before Slurm's time limit.

    Slurm's own request comes twice on some sites, and leaves them ``KillWait`` seconds. The limit
    may be changed meanwhile: it is looked at again before it counts.
    """

    def __init__(self, grace_s: float) -> None:
        self._wanted_s = grace_s + AHEAD_S
        self._ahead_s: float | None = None
        self._job = ""
        self._look_at = float("inf")

    def begin(self, job: str) -> None:
        """Slurm's job is known."""
        self._job, self._look_at = job, time.monotonic()

    @property
    def wait_s(self) -> float:
        """How long until somebody should ask :meth:`is_near`."""
        return min(LONGEST_WAIT_S, max(0.0, self._look_at - time.monotonic()))

    def is_near(self) -> bool:
        """Whether the time has come; asks Slurm, when it may have."""
        if time.monotonic() < self._look_at:
            return False
        try:
            left_s = find_time_left(self._job)
        except SlurmError:
            self._look_at = time.monotonic() + ASK_AGAIN_S
            return False
        if left_s is None:
            self._look_at = float("inf")
            return False
        if self._ahead_s is None:
            self._ahead_s = min(self._wanted_s, LARGEST_PART * left_s)
        until_s = left_s - self._ahead_s
        self._look_at = float("inf") if until_s <= 0 else time.monotonic() + until_s
        return until_s <= 0


class Offer:
    """One launcher, to whoever comes from Slurm first."""

    def __init__(self, name: str, node: str, argv: list[str], held: socket.socket | None) -> None:
        self._argv = argv
        self._held = held
        self._node = node
        self._job = ""
        self._signals_whole_trees = signals_whole_trees()
        self._stopping = False
        self._limit = TimeLimit(float(os.environ.get(GRACE, DEFAULT_GRACE_S)))
        self._limited = False
        self._wake = Wake(signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(address_of(name, node))
        self._listener.listen(BACKLOG)

    def run(self) -> NoReturn:
        """Until the launcher has ended, or this process is told to go before there is one."""
        lines = self._wait()
        ended = self._mirror(lines)
        if ended is not None and not ended["told"] and not self._limited:
            end_alike(int(ended["status"]))
        if ended is None and self._stopping:  # asked to end, it was ended
            end_alike(signal.SIGTERM)
        sys.stderr.write(f"{ENDED_BY_SLURM}: {self._ending(ended)}\n")
        sys.stderr.flush()
        os._exit(1)

    def _wait(self) -> Lines:
        while True:
            ready = _ready(self._listener, self._wake)
            if self._wake in ready:
                for number in self._wake.taken():
                    end_alike(number)
            if self._listener in ready:
                connection, _ = self._listener.accept()
                if peer_uid(connection) == os.geteuid():
                    self._listener.close()
                    return self._hand_over(Lines(connection))
                connection.close()

    def _hand_over(self, lines: Lines) -> Lines:
        if self._held is not None:
            self._held.close()
        order = {
            "argv": self._argv,
            "env": dict(os.environ),
            "cwd": os.getcwd(),
            "signals_whole_trees": self._signals_whole_trees,
        }
        lines.say(order, descriptors=(1, 2))
        return lines

    def _mirror(self, lines: Lines) -> dict[str, Any] | None:
        """How the launcher ended; None when the task went without a word."""
        while True:
            ready = _ready(lines, self._wake, within_s=self._limit.wait_s)
            if self._wake in ready and self._wake.taken():
                self._stopping = True
                self._tell(lines, signal.SIGTERM)
            if not self._stopping and self._limit.is_near():
                self._limited = True
                self._tell(lines, signal.SIGTERM)
            if lines not in ready:
                continue
            heard = lines.hear()
            if heard is None:
                return None
            for message in heard:
                if "job" in message:
                    self._job = str(message["job"])
                    self._limit.begin(self._job)
                if "status" in message:
                    return message

    def _tell(self, lines: Lines, number: int) -> None:
        try:
            lines.say({"signal": int(number)})
        except OSError:
            return  # it is gone, which the next look tells

    def _ending(self, ended: dict[str, Any] | None) -> str:
        if self._limited:
            return f"Slurm ends job {self._job} on {self._node}: its time limit is reached"
        how = f"with signal {ended['told']}" if ended else "without a word"
        try:
            why = f": {job_ending(self._job)}" if self._job else ""
        except SlurmError as error:
            why = f": {error}"
        return f"Slurm ended job {self._job} on {self._node} {how}{why}"


def _ready(
    *sources: socket.socket | Lines | Wake, within_s: float | None = None
) -> list[socket.socket | Lines | Wake]:
    """Those that have something to be read."""
    return select.select(sources, [], [], within_s)[0]


def hold(port: str) -> socket.socket | None:
    """Keep ``port`` from others; None where that cannot be, which the launcher will tell."""
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        held.bind(("", int(port)))
    except OSError:
        held.close()
        return None
    return held


def main() -> None:
    split = sys.argv.index("--")
    name, node, *rest = sys.argv[1:split]
    held = hold(rest[1]) if rest[:1] == ["--hold"] else None
    Offer(f"{name}.{os.environ['ORCHESTRATE_ATTEMPT']}", node, sys.argv[split + 1 :], held).run()


if __name__ == "__main__":
    main()
