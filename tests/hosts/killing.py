"""Runs whose coordinators are killed at random moments, again and again, from one seed."""

from __future__ import annotations

import random
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.store.run_list import read_result
from orchestrator.core.run import machine as brain
from orchestrator.engine.oneshot.cleanup import read_request
from orchestrator.engine.support.replay import replay_journal
from tests.hosts.processes import Machine, look
from tests.hosts.running import RANK, Desk, Ending, Job
from tests.hosts.surviving import SCRIPT, STEPS, Work, essence, faults, release
from tests.time_limits import wait_for_exit

MAX_KILLS = 4
RESUMABLE = 75
MAX_RESUMES = 5
ENTRIES = 12  # of a node in the journal of an undisturbed run, about
STEP_COUNT = 18  # of a tenth of a second
NOBODY = "before its folder"
OVER = "over"


@dataclass(frozen=True, slots=True)
class Moment:
    """When a coordinator is killed: once it lived for ``seconds``, or wrote so many ``entries``."""

    seconds: float
    entries: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What happens to one run. ``gaps`` are the seconds that pass after each of the ``kills`` until
    the next coordinator comes. ``lease_s`` None: ranks go on without.
    """

    work: Work
    kills: tuple[Moment, ...]
    gaps: tuple[float, ...]
    lease_s: float | None
    neighbour: bool

    @property
    def options(self) -> list[str]:
        nodes = ["--nodes", ",".join(self.work.nodes)]
        lease = "continue" if self.lease_s is None else f"{self.lease_s:g}"
        return [*nodes, "--unattended", lease]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a scenario; ``phases``: where each coordinator was killed."""

    phases: tuple[str, ...]
    seconds: float
    faults: tuple[str, ...]
    attempts: int
    folder: Path


def scenario(seed: str, names: Sequence[str], workdir: str, run_s: float) -> Scenario:
    """The scenario of ``seed``; an undisturbed run takes about ``run_s`` seconds."""
    chance = random.Random(seed)
    count = chance.randint(min(2, len(names)), min(3, len(names)))
    work = Work(tuple(sorted(chance.sample(list(names), count))), STEP_COUNT, workdir=workdir)
    kills = [_moment(chance, run_s, count * ENTRIES)]
    while len(kills) < MAX_KILLS and chance.random() < 0.3:
        kills.append(_moment(chance, run_s, count * ENTRIES // 2))
    # A second is soon over: then the ranks stop by themselves, and another attempt goes on.
    lease_s = chance.choice([60.0, 1.0, 1.0, None])
    gaps = [chance.choice([0.0, chance.uniform(0, 1), 2.0]) for _ in kills]
    return Scenario(
        work=work,
        kills=tuple(kills),
        gaps=tuple(gaps),
        lease_s=lease_s,
        neighbour=chance.random() < 0.1,
    )


def _moment(chance: random.Random, run_s: float, entries: int) -> Moment:
    """By the clock most kills hit the ranks at work; by the journal every step of ours is hit."""
    if chance.random() < 0.3:
        return Moment(chance.uniform(0, 1.2 * run_s))
    return Moment(3 * run_s, chance.randint(1, entries))


class Field:
    """Where scenarios are played: a desk, and the machine that its inventory describes, or the
    nodes ``names`` of it.
    """

    def __init__(
        self,
        desk: Desk,
        machine: Machine,
        workdir: str = "~/.orchestrate",
        names: Sequence[str] = (),
    ) -> None:
        self.desk = desk
        self.machine = machine
        self.names = names or machine.names
        self.workdir = workdir
        self._undisturbed: dict[tuple[str, ...], dict[str, Any]] = {}
        desk.script(SCRIPT, STEPS)
        desk.script("rank.py", RANK)
        self.run_s = self._measure()

    def _measure(self) -> float:
        work = Work(tuple(sorted(self.names)[:3]), STEP_COUNT, workdir=self.workdir)
        began = time.monotonic()
        self._expected(work)
        return time.monotonic() - began + work.steps * work.pause_s

    def _expected(self, work: Work) -> dict[str, Any]:
        """The essence of an undisturbed run on the same nodes, in less time."""
        if work.nodes not in self._undisturbed:
            hurried = replace(work, pause_s=0.0)
            options = ["--nodes", ",".join(work.nodes)]
            _, ending = self.desk.run(SCRIPT, *hurried.arguments, options=options)
            assert ending.code == 0, ending.err
            self._undisturbed[work.nodes] = essence(ending.result)
        return self._undisturbed[work.nodes]

    def play(self, seed: str) -> Outcome:
        """One scenario, to its end and through every check."""
        asked = scenario(seed, self.names, self.workdir, self.run_s)
        expected = self._expected(asked.work)
        with self._neighbour(asked) as wrong:
            run, phases = self._torment(asked)
            began = time.monotonic()
            ending = self._resume(run, wrong)
            seconds = time.monotonic() - began
        folder = self.desk.folder(run)
        if ending is not None:
            wrong += _differences(essence(ending.result), expected)
            wrong += faults(folder, self.machine, asked.work)
        return Outcome(
            phases=phases,
            seconds=seconds,
            faults=tuple(wrong),
            attempts=max(_attempts(folder), default=1),
            folder=folder,
        )

    def _torment(self, asked: Scenario) -> tuple[str, tuple[str, ...]]:
        """Start the run and kill one coordinator after the other; the run, and the phases."""
        job: Job | None = None
        phases: list[str] = []
        for kill, gap_s in zip(asked.kills, asked.gaps, strict=True):
            if job is None or phases[-1] == NOBODY:
                job = self.desk.start(SCRIPT, *asked.work.arguments, options=asked.options)
            else:
                job = self.desk.resume(job.run)
            _await(kill, job, self.desk.folder(job.run) / "journal.jsonl")
            job.abandon()
            phases.append(phase_of(self.desk.folder(job.run)))
            if phases[-1] == OVER:
                break
            time.sleep(gap_s)
        assert job is not None
        if phases[-1] == NOBODY:
            job = self.desk.start(SCRIPT, *asked.work.arguments, options=asked.options)
            wait_for_exit(job.process, 60)
        return job.run, tuple(phases)

    def _resume(self, run: str, wrong: list[str]) -> Ending | None:
        """Until the run succeeded; adds to ``wrong`` why it did not."""
        said = ""
        for _ in range(MAX_RESUMES):
            job = self.desk.resume(run)
            try:
                ending = job.end()
            except (AssertionError, subprocess.TimeoutExpired) as error:
                job.abandon()
                said = f"resume ended without a result: {str(error)[:2000]} {job.err}"
                break
            if ending.code == 0:
                return ending
            said = f"exit code {ending.code}: {ending.err}"
            if ending.code != RESUMABLE:
                break
        wrong.append(said)
        return None

    @contextmanager
    def _neighbour(self, asked: Scenario) -> Iterator[list[str]]:
        """While inside, another run of ours goes on on the same hosts; the list tells at the end
        what was done to it.
        """
        troubles: list[str] = []
        if not asked.neighbour:
            yield troubles
            return
        nodes = asked.work.nodes
        job = self.desk.start("rank.py", "wait", options=["--nodes", ",".join(nodes)])
        job.wait_for_line("ready", len(nodes))
        before = self._processes(job.run, nodes)
        yield troubles
        if self._processes(job.run, nodes) != before:
            troubles.append(f"the neighbour {job.run} lost a process")
        release(self.machine, job.run, nodes)
        if (code := job.end().code) != 0:
            troubles.append(f"the neighbour {job.run} ended with {code}")

    def _processes(self, run: str, nodes: Sequence[str]) -> Mapping[str, Any]:
        return {host: sorted(look(self.machine, host, run=run)) for host in nodes}


def _await(moment: Moment, job: Job, journal: Path) -> None:
    """Until the moment comes, or the coordinator's end."""
    deadline = time.monotonic() + moment.seconds
    before = _entries(journal)
    while time.monotonic() < deadline and job.process.poll() is None:
        if moment.entries is not None and _entries(journal) - before >= moment.entries:
            return
        time.sleep(0.001)


def _entries(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def phase_of(path: Path) -> str:
    """Where a run stands, by what its folder tells."""
    folder = RunFolder(path)
    if not folder.path.exists():
        return NOBODY
    if read_result(folder) is not None:
        return OVER
    return brain.current_phase(replay_journal(folder, read_request(folder)).state).value


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> Iterator[str]:
    for key in expected:
        if found.get(key) != expected[key]:
            yield f"{key}: {found.get(key)}, not {expected[key]}"


def _attempts(folder: Path) -> Iterator[int]:
    for path in folder.glob("logs/*/attempt-*"):
        yield int(path.name.partition("-")[2])


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What many outcomes come to. Times are seconds from the last resume to its end."""
    seconds = sorted(outcome.seconds for outcome in outcomes)
    phases = Counter(phase for outcome in outcomes for phase in outcome.phases)
    return {
        "count": len(outcomes),
        "correct": sum(not outcome.faults for outcome in outcomes),
        "kills": phases.total() - phases[OVER],
        "phases": dict(phases.most_common()),
        "second_attempts": sum(outcome.attempts > 1 for outcome in outcomes),
        "resume_s_median": round(statistics.median(seconds), 2),
        "resume_s_p95": round(seconds[max(0, round(0.95 * len(seconds)) - 1)], 2),
    }
