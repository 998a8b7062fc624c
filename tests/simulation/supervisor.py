"""The model of a node's supervisor and of the ranks under it.

It does what ``node_agent.attempt.supervisor`` does, driven by timers rather than a tick: starts
ranks, records every ending, stops the rest at the first failure, when it is asked to and when the
lease runs out, then sweeps and concludes.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.simulation.disk import AttemptFiles, ProcessIdentity, RunShare

if TYPE_CHECKING:
    from tests.simulation.node import FakeNode

TICK_S = 0.05
LEFTOVER_GRACE_S = 2.0
BARRIER_POLL_S = 0.5
Outcome = dict[str, Any]
SUMMARY = "=" * 600  # much at once, so that the logs' end arrives after the news of it
SUCCESS: Outcome = {"exited": 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What every rank of a job does: ``steps`` of ``step_s`` seconds, then a final figure.

    ``fails`` maps (attempt, rank) to the step at which that rank exits with code 3. ``coupled``:
    no rank is more than a step ahead of another. ``stubborn`` ranks ignore TERM. ``strays``: each
    rank starts a process that drops out of its process tree and outlives it. ``progress``: ranks
    report how far they are.
    """

    steps: int = 6
    step_s: float = 0.5
    checkpoint_every: int = 2
    fails: tuple[tuple[int, int, int], ...] = ()
    coupled: bool = True
    stubborn: tuple[int, ...] = ()
    strays: bool = False
    progress: bool = False


def ranks_of(processes: list[dict[str, Any]]) -> tuple[list[int], bool]:
    """The ranks that a launch request starts, and whether under a launcher."""
    if processes[0]["rank"] is not None:
        return [process["rank"] for process in processes], False
    words = dict(w.split("=", 1) for w in processes[0]["argv"] if w.startswith("--") and "=" in w)
    count, node_rank = int(words["--nproc-per-node"]), int(words["--node-rank"])
    return list(range(node_rank * count, (node_rank + 1) * count)), True


class Process:
    """A process of some run on a node, as its marker names it. Ends with the node at the latest."""

    def __init__(self, node: FakeNode, run: str, share: str, comm: str) -> None:
        self.node = node
        self.run = run
        self.share = share
        self.comm = comm
        self.pid = node.next_pid()
        self.alive = True
        self.frozen = False
        node.processes.append(self)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """What the kernel does; there is nobody to tell."""
        del number
        if self.alive:
            self.alive = False
            self.node.processes.remove(self)

    def told(self) -> dict[str, Any]:
        return {"pid": self.pid, "comm": self.comm, "state": "S"}


class Rank(Process):
    """Runs the script from the last checkpoint. Every line that it writes has a number."""

    def __init__(self, supervisor: Supervisor, rank: int, local_rank: int) -> None:
        super().__init__(supervisor.node, supervisor.files.run, supervisor.files.node, "python")
        self.supervisor = supervisor
        self.rank = rank
        self.local_rank = local_rank
        self.outcome: Outcome | None = None
        self.told_to_end = False
        self.step = supervisor.run_share.checkpoints.get(rank, 0)
        self._lines = 0

    def start(self) -> None:
        self.node.world.barrier.enter(self)
        if self.supervisor.script.strays:
            Process(self.node, self.run, self.share, "stray")
        self._write(f"attempt {self.supervisor.files.number} from step {self.step}")
        self._later(self.supervisor.script.step_s)

    def _later(self, delay_s: float) -> None:
        self.node.world.call_later(delay_s * self.node.slow, self._advance)

    def _advance(self) -> None:
        if not self.alive:
            return
        if self.frozen or (self.supervisor.script.coupled and self.node.world.barrier.ahead(self)):
            self._later(BARRIER_POLL_S)
            return
        try:
            self._take_step()
        except OSError:
            self.end({"exited": 1})

    def _take_step(self) -> None:
        script, files = self.supervisor.script, self.supervisor.files
        self.step += 1
        if (files.number, self.rank, self.step) in script.fails:
            self._write(f"step {self.step} fails")
            self.end({"exited": 3})
            return
        if self.step <= script.steps:
            self._write(f"step {self.step}")
            self._report("loss", round(1.0 / self.step, 6), self.step)
            if script.progress:
                self._tell_progress(self.step, script.steps)
            if self.step % script.checkpoint_every == 0:
                self.node.disk.write()
                self.supervisor.run_share.checkpoints[self.rank] = self.step
        if self.step < script.steps:
            self._later(script.step_s)
            return
        self._finish()

    def _finish(self) -> None:
        files = self.supervisor.files
        self.node.disk.write()
        files.outputs[f"model-{self.rank}.bin"] = f"weights of rank {self.rank}\n".encode() * 3
        self._report("final", float(100 + self.rank), None)
        self._write("done: " + SUMMARY)
        self.end(SUCCESS)

    def _write(self, text: str) -> None:
        self.node.disk.write()
        line = f"{self._lines:04d} rank {self.rank}: {text}\n"
        self._lines += 1
        self.supervisor.files.append_log(f"rank-{self.rank}.out", line.encode())

    def _report(self, name: str, value: float, step: int | None) -> None:
        self._append({"type": "metric", "name": name, "value": value, "unit": "u", "step": step})

    def _tell_progress(self, done: int, total: int) -> None:
        self._append({"type": "progress", "done": done, "total": total, "unit": "step"})

    def _append(self, record: dict[str, Any]) -> None:
        self.node.disk.write()
        record["t"] = self.node.wall()
        self.supervisor.files.append_report(f"rank-{self.rank}.jsonl", record)

    def terminate(self) -> None:
        """TERM: dies of it, unless it ignores it or is stopped."""
        self.told_to_end = True
        if self.frozen or self.rank in self.supervisor.script.stubborn:
            return
        self.node.world.call_later(0.02, self.kill, signal.SIGTERM)

    def kill(self, number: int = signal.SIGKILL) -> None:
        self.end({"signalled": int(number)})

    def end(self, outcome: Outcome) -> None:
        if not self.alive:
            return
        self.outcome = outcome
        super().kill()
        self.supervisor.rank_ended(self)

    def last_line(self) -> str:
        lines = self.supervisor.files.logs.get(f"rank-{self.rank}.out", b"").splitlines()
        return lines[-1].decode()[:100] if lines else ""


class Supervisor(Process):
    """One attempt on one node from its first process to ``concluded``."""

    def __init__(
        self,
        node: FakeNode,
        share: RunShare,
        files: AttemptFiles,
        ranks: list[int],
        *,
        script: Script,
        grace_s: float,
        launcher: bool,
    ) -> None:
        super().__init__(node, share.run, share.node, "supervisor")
        self.run_share = share
        self.files = files
        self.script = script
        self._grace_s = grace_s
        self._launcher = launcher
        self._outcomes: dict[str, Outcome] = {}
        self._waiting: list[dict[str, Any]] = []
        self._sequence = 0
        self.why = ""
        self._failed = False
        self._deadline = 0.0
        files.supervisor = ProcessIdentity(self.pid, self.pid * 7, node.boot_id)
        self._record("started", pid=self.pid, boot_id=node.boot_id)
        self.ranks = [Rank(self, rank, local) for local, rank in enumerate(ranks)]
        for rank in self.ranks:
            self._record(
                "rank-started",
                rank=rank.rank,
                local_rank=rank.local_rank,
                pid=rank.pid,
                start_time=rank.pid * 7,
            )
        for rank in self.ranks:
            rank.start()
        self.obey()

    # ---- records --------------------------------------------------------------------------------

    def _record(self, event: str, **fields: Any) -> None:
        record = {
            "event": event,
            "seq": self._sequence,
            "t": self.node.wall(),
            "mono": self.node.mono(),
            **fields,
        }
        self._sequence += 1
        self._waiting.append(record)
        self.flush()

    def flush(self) -> bool:
        """What a full disk refuses waits in memory."""
        if self.node.disk.full:
            return False
        for record in self._waiting:
            self.files.append_record(record)
        self._waiting.clear()
        return True

    # ---- ranks ----------------------------------------------------------------------------------

    def rank_ended(self, rank: Rank) -> None:
        """The tick after it sees that."""
        self.node.world.call_later(TICK_S, self._observe, rank)

    def _observe(self, rank: Rank) -> None:
        if not self.alive:
            return
        assert rank.outcome is not None
        by_us = rank.told_to_end and "signalled" in rank.outcome
        self._outcomes[f"rank-{rank.rank}"] = rank.outcome
        self._record(
            "rank-exited",
            rank=rank.rank,
            outcome=rank.outcome,
            last_line=rank.last_line(),
            by_us=by_us,
        )
        if rank.outcome != SUCCESS and not by_us:
            self._failed = True
            self.stop("first-failure", self._grace_s)
        if len(self._outcomes) == len(self.ranks):
            self.node.world.call_later(TICK_S, self._end)

    # ---- obeying --------------------------------------------------------------------------------

    def obey(self) -> None:
        """Look at the stop file and at the lease, now and when the lease would run out."""
        if not self.alive or self.files.concluded:
            return
        if self.files.stop_grace_s is not None:
            self.stop("asked", self.files.stop_grace_s)
        lease = self.files.lease
        if lease is None or lease.deadline is None or self.why:
            return
        left_s = (lease.deadline - self.node.mono()) / self.node.rate
        if left_s <= 0:
            self.stop("lease", self._grace_s)
        else:
            self.node.world.call_later(left_s + 0.001, self.obey)

    def stop(self, why: str, grace_s: float) -> None:
        """TERM, the grace, KILL. A repeat may only make it sooner."""
        deadline = self.node.world.now + grace_s
        if self.why:
            self._deadline = min(self._deadline, deadline)
        else:
            self.why, self._deadline = why, deadline
            self._record("stopping", why=why, grace_s=grace_s)
            for rank in self.ranks:
                if rank.alive:
                    rank.terminate()
        self.node.world.call_later(max(0.0, self._deadline - self.node.world.now), self._kill)

    def _kill(self) -> None:
        if not self.alive or self.node.world.now < self._deadline:
            return
        for rank in self.ranks:
            rank.told_to_end = rank.told_to_end or rank.alive
            rank.kill()

    # ---- ending ---------------------------------------------------------------------------------

    def _end(self) -> None:
        """All ranks are gone: the launcher goes, then what they left behind."""
        if not self.alive:
            return
        if self._launcher:
            bad = next((o for o in self._outcomes.values() if o != SUCCESS), None)
            outcome = SUCCESS if bad is None else {"exited": 1}
            by_us = bool(self.why) and bad is not None
            self._outcomes["launcher"] = outcome
            self._record(
                "process-exited", label="launcher", outcome=outcome, last_line="", by_us=by_us
            )
        self.why = self.why or "finished"
        left = bool(self.strays())
        self.node.world.call_later(LEFTOVER_GRACE_S if left else TICK_S, self._conclude)

    def strays(self) -> list[Process]:
        """Processes of the run besides us and our ranks."""
        return [p for p in self.node.marked(self.run, self.share) if p is not self]

    def _conclude(self) -> None:
        if not self.alive:
            return
        killed = [stray.pid for stray in self.strays()]
        for stray in self.strays():
            stray.kill()
        if killed:
            self._record("killed", pids=killed)
        self._record(
            "concluded",
            clean=True,
            why=self.why,
            mechanism="marker",
            scans=2 + bool(killed),
            survivors=[],
            outcomes=self._outcomes,
        )
        self._leave(self.node.world.now + 30.0)

    def _leave(self, until: float) -> None:
        """Wait for the disk to take the last records, but not for ever."""
        if self.alive and not self.flush() and self.node.world.now < until:
            self.node.world.call_later(0.5, self._leave, until)
            return
        self._die()

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Its ranks die with it; strays do not."""
        if not self.alive:
            return
        self._die()
        for rank in self.ranks:
            rank.kill()

    def _die(self) -> None:
        super().kill()
        self.node.locks.release(self)
        self.files.changed()
