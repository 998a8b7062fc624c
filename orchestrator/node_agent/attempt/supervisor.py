"""The supervisor of one attempt on one node: starts processes, records each ending, stops the rest.

It is detached from the SSH session and single-threaded. It ends its processes when it is asked to,
when the lease runs out, or when the first of them fails, unless they are independent of each other;
then it sweeps what is left and concludes.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time

from orchestrator.node_agent.attempt.locks import remove_records, sign_records
from orchestrator.node_agent.base.lease_file import LeaseReader
from orchestrator.node_agent.base.node_layout import AttemptLayout, write_atomically
from orchestrator.node_agent.base.schedulers import release_jobs
from orchestrator.node_agent.process.cgroups import ControlGroup
from orchestrator.node_agent.process.children import Child, reap_children
from orchestrator.node_agent.process.eventlog import EventLog
from orchestrator.node_agent.process.processes import (
    FoundProcess,
    SweepResult,
    list_descendants,
    living_processes,
    marked_processes,
    send_signal,
    sweep_processes,
    unique_processes,
)
from orchestrator.node_agent.process.rank_shim import start_time
from orchestrator.node_agent.process.ranks import RankTable, ShimmedRank

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PR_SET_CHILD_SUBREAPER = 36
TICK_S = 0.05
SWEEP_S = 10.0
LEFTOVER_GRACE_S = 2.0
FLUSH_S = 30.0
SAMPLER_S = 5.0  # for its last sample; a driver that does not answer is not waited for
MAX_GRACE_S = 3600.0
STOP_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
WAITED = {signal.SIGCHLD, *STOP_SIGNALS}
BY_SIGNAL = ({"signalled": 15}, {"signalled": 9}, {"signalled": 2}, {"signalled": 1})
SUCCESS = {"exited": 0}
ABOUT = ("run", "node", "attempt", "boot_id", "snapshot", "agent", "environments")


class Supervisor:
    """One attempt from its first process to ``concluded``."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.attempt = AttemptLayout(spec["attempt_dir"])
        self.log = EventLog(self.attempt.events)
        self.lease = LeaseReader(self.attempt)
        self.ranks = RankTable(self.attempt)
        self.group = ControlGroup.create(self.attempt)
        self.children: list[Child] = []
        # Ranks may end before it has begun: it hears of that all the same.
        self.sampler = Child("telemetry", None, self.attempt.root, {signal.SIGTERM})
        self.outcomes: dict[str, dict[str, Any]] = {}
        self.failed = False
        self.why = ""
        self.deadline = 0.0
        self.stop_seen: tuple[int, int] | None = None

    # ---- beginning ------------------------------------------------------------------------------

    def start(self) -> None:
        """Start every process of the specification, in order."""
        self.log.append("started", pid=os.getpid(), boot_id=self.spec["boot_id"])
        for local_rank, process in enumerate(self.spec["processes"]):
            child = Child(process["label"], process["rank"], self.attempt.logs)
            self.children.append(child)
            child.start(process["argv"], process["env"], self.spec["cwd"], self.group)
            identity = {"pid": child.pid, "start_time": child.start_time}
            if child.rank is None:
                self.log.append("process-started", label=child.label, **identity)
            else:
                self.log.append("rank-started", rank=child.rank, local_rank=local_rank, **identity)
        if self.spec["sampler"]:
            environment = self.spec["processes"][0]["env"]  # where ranks find the driver's library
            self.sampler.start(self.spec["sampler"], environment, "/", self.group)

    # ---- the loop -------------------------------------------------------------------------------

    def run(self) -> None:
        """Until all processes have ended or were told to and had their grace."""
        while any(child.running for child in self.children):
            self._tick()
            if self.why and time.monotonic() >= self.deadline:
                for child in self.children:
                    child.kill_group()
                break
        self._end_sampler()
        self._end_leftovers()
        self._conclude()

    def _tick(self) -> None:
        info = signal.sigtimedwait(WAITED, TICK_S)
        if info is not None and info.si_signo in STOP_SIGNALS:
            self._stop("terminated", self.spec["grace_s"])
        self._observe()
        self._obey()
        self.log.flush()

    def _observe(self) -> None:
        """Record what began and ended. Ranks come first: a launcher ends because a rank did."""
        statuses = reap_children()
        if self.sampler.running and self.sampler.pid in statuses:
            self.sampler.reaped(statuses[self.sampler.pid])
        ended = [child for child in self.children if child.running and child.pid in statuses]
        for child in ended:  # before anything is signalled: a reaped pid may become another's
            child.reaped(statuses[child.pid])
        for rank in self.ranks.begun():
            self.log.append(
                "rank-started",
                t=rank.started_at,
                rank=rank.rank,
                local_rank=rank.local_rank,
                pid=rank.pid,
                start_time=rank.start_time,
            )
        for rank in self.ranks.ended():
            self._record_rank(rank)
        for child in ended:
            self._record_child(child)

    def _obey(self) -> None:
        """Act on the stop file and on the lease."""
        try:
            status = os.stat(self.attempt.stop)
            if self.stop_seen != (status.st_ino, status.st_mtime_ns):
                self.stop_seen = (status.st_ino, status.st_mtime_ns)
                with open(self.attempt.stop) as file:
                    grace_s = float(json.loads(file.read(4096))["grace_s"])
                self._stop("asked", grace_s)
        except (OSError, ValueError, KeyError, TypeError):
            pass
        running = any(child.running for child in self.children)
        if running and not self.why and self.lease.expired:
            self._stop("lease", self.spec["grace_s"])

    # ---- recording ------------------------------------------------------------------------------

    def _record_rank(self, rank: ShimmedRank) -> None:
        outcome = rank.outcome or {}
        # What an engine hands on has a sender that nobody knows.
        asked = outcome in BY_SIGNAL or (bool(self.spec["engine"]) and rank.told)
        by_us = rank.told_to_end or (bool(self.why) and asked)
        self._record_rank_exit(
            rank.rank, outcome, rank.ended_at, self.ranks.last_line(rank), by_us=by_us
        )

    def _record_child(self, child: Child) -> None:
        by_us = bool(self.why) and child.told
        if child.rank is not None:
            self._record_rank_exit(
                child.rank, child.outcome, child.ended_at, child.last_line(), by_us=by_us
            )
            return
        by_us = by_us or (self.failed and child.outcome != SUCCESS)
        self.outcomes[child.label] = child.outcome
        self.log.append(
            "process-exited",
            t=child.ended_at,
            label=child.label,
            outcome=child.outcome,
            last_line=child.last_line(),
            by_us=by_us,
        )
        self._react(child.outcome, by_us=by_us)

    def _record_rank_exit(
        self, rank: int, outcome: dict[str, Any], at: float | None, last_line: str, by_us: bool
    ) -> None:
        self.outcomes[f"rank-{rank}"] = outcome
        self.log.append(
            "rank-exited", t=at, rank=rank, outcome=outcome, last_line=last_line, by_us=by_us
        )
        self._react(outcome, by_us=by_us)

    def _react(self, outcome: dict[str, Any], by_us: bool) -> None:
        if outcome != SUCCESS and not by_us:
            self.failed = True
            if not self.why and not self.spec["independent"]:
                self._stop("first-failure", self.spec["grace_s"])

    # ---- ending ---------------------------------------------------------------------------------

    def _stop(self, why: str, grace_s: float) -> None:
        """TERM everything that we started. A repeat may only make it sooner."""
        deadline = time.monotonic() + min(max(0.0, grace_s), MAX_GRACE_S)
        if self.why:
            self.deadline = min(self.deadline, deadline)
            return
        self.why, self.deadline = why, deadline
        self.log.append("stopping", why=why, grace_s=grace_s)
        for child in self.children:
            child.terminate()

    def find(self) -> list[FoundProcess]:
        """What belongs to this run here: by marker, and by descent or by control group for those
        who dropped it.
        """
        share = os.path.dirname(self.spec["attempt_dir"])
        grouped = living_processes(self.group.pids()) if self.group else []
        return unique_processes(marked_processes(share), list_descendants(os.getpid()), grouped)

    def sweep(self) -> SweepResult:
        """End all of it."""
        swept = sweep_processes(self.find, SWEEP_S, self.group.kill if self.group else None)
        if self.group:
            self.group.remove()
        return swept

    def _end_sampler(self) -> None:
        self.sampler.terminate()
        deadline = time.monotonic() + SAMPLER_S
        while self.sampler.running and time.monotonic() < deadline:
            self._tick()

    def _end_leftovers(self) -> None:
        """Processes that outlived their launcher get a TERM and what remains of the grace."""
        if not self.why:
            self.why = "finished"
            self.deadline = time.monotonic() + min(self.spec["grace_s"], LEFTOVER_GRACE_S)
        told: set[int] = set()
        while time.monotonic() < self.deadline:
            left = self.find()
            if not left:
                return
            spared = self._of_living_ranks(left) | self._of_engine(left)
            for process in left:
                if process.pid not in told | spared:
                    told.add(process.pid)
                    send_signal(process.pid, process.start_time, signal.SIGTERM)
            self._tick()

    def _of_living_ranks(self, found: list[FoundProcess]) -> set[int]:
        """Ranks under a shim, which asks each of them to end just once; and what they started,
        which is theirs to end while they live.
        """
        spared = {rank.pid for rank in self.ranks.pending()}
        parents = {process.pid: process.parent for process in found}
        while True:
            more = {pid for pid, parent in parents.items() if parent in spared} - spared
            if not more:
                return spared
            spared |= more

    def _of_engine(self, found: list[FoundProcess]) -> set[int]:
        """What an engine put between us and its containers, and what cleans up behind them: it has
        nothing of the attempt's environment, and ends with its container.
        """
        if not self.spec["engine"]:
            return set()
        marked = marked_processes(os.path.dirname(self.spec["attempt_dir"]))
        return {process.pid for process in found} - {process.pid for process in marked}

    def _conclude(self) -> None:
        swept = self.sweep()
        self.attempt.remove_scratch()
        left = release_jobs(self.attempt)
        self._observe()
        self._record_unknown()
        if swept.killed:
            self.log.append("killed", pids=swept.killed)
        self.log.append(
            "concluded",
            clean=swept.clean and not left,
            why=self.why,
            mechanism="cgroup" if self.group else "subreaper",
            scans=swept.scans,
            survivors=[process.describe() for process in swept.survivors] + left,
            outcomes=self.outcomes,
        )
        deadline = time.monotonic() + FLUSH_S
        while not self.log.flush() and time.monotonic() < deadline:
            time.sleep(TICK_S)

    def _record_unknown(self) -> None:
        """Whatever outlived KILL: nobody can tell how it will end."""
        lost = {"lost": "it was still there after KILL"}
        for rank in self.ranks.pending():
            self._record_rank_exit(rank.rank, lost, None, "", by_us=True)
        for child in self.children:
            if not child.running:
                continue
            if child.rank is not None:
                self._record_rank_exit(child.rank, lost, None, "", by_us=True)
            else:
                self.outcomes[child.label] = lost
                self.log.append(
                    "process-exited", label=child.label, outcome=lost, last_line="", by_us=True
                )


def detach_session() -> None:
    """Leave the session that started us, and get every orphan below us as our child."""
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, WAITED)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)[1]
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (hard, hard))  # InfiniBand pins memory


def _answer(text: str) -> None:
    """Whoever launched us may be gone; the lease decides how long that may last."""
    try:
        os.write(3, text.encode())
    except BrokenPipeError:
        pass
    os.close(3)


def main() -> None:
    """Standard input: the specification. Descriptor 3: the answer to whoever launches us."""
    spec = json.loads(sys.stdin.buffer.read())
    detach_session()
    os.chdir("/")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for fd in (3, *spec["held"]):
        os.set_inheritable(fd, False)
    identity = {"pid": os.getpid(), "start_time": start_time(os.getpid())}
    about = {key: spec[key] for key in ABOUT}
    path = AttemptLayout(spec["attempt_dir"]).supervisor
    write_atomically(path, json.dumps({**identity, **about}).encode())
    sign_records(spec["lock_records"])
    supervisor = Supervisor(spec)
    try:
        supervisor.start()
        _answer(json.dumps(identity) + "\n")
        supervisor.run()
    except BaseException:
        supervisor.sweep()  # a bug of ours must not leave processes behind
        raise
    finally:
        remove_records(list(spec["lock_records"]))
