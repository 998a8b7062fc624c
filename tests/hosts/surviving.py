"""Runs whose coordinator dies: a job that counts its steps, and what must be true of it at the end.

A run is compared with what its job would have done undisturbed, and with what its nodes kept.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.store.journal import JournalReader
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.core.history.run_record import RunQuery
from orchestrator.core.run import machine
from orchestrator.core.run.connectivity import Reached, RendezvousOffered
from orchestrator.core.run.events import Connected, Reserved
from orchestrator.core.run.state import new_state
from orchestrator.engine.oneshot.cleanup import read_request
from orchestrator.engine.support.replay import read_events
from tests.hosts.processes import Machine, remains
from tests.hosts.running import Desk, Ending, Job
from tests.time_limits import Deadline, scaled

# One rank: each step is a line, a point and a checkpoint; a request to end waits for the step.
# Before step HELD it waits until the home of its host has a file of the run's name.
STEPS = """
import json, os, signal, sys, time
import orchestrate_kit as kit

rank, steps, pause, held = kit.rank(), int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
go = os.path.expanduser("~/go-" + os.environ["ORCHESTRATE_RUN_ID"])
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
saved = kit.checkpoint_dir() / ("rank-%d.json" % rank)
done, total = json.loads(saved.read_text()) if saved.exists() else (0, 0)
print("from", done, file=sys.stderr, flush=True)
for step in range(done, steps):
    while step == held and not os.path.exists(go) and not asked:
        time.sleep(0.02)
    total += step * (rank + 1)
    print("step", step, "total", total, flush=True)
    kit.metric("total", total, "1", step=step)
    part = saved.with_suffix(".part")
    part.write_text(json.dumps([step + 1, total]))
    part.replace(saved)
    kit.checkpoint(saved, step + 1)
    if asked:
        break
    time.sleep(pause)
output = kit.output_dir() / ("rank-%d.txt" % rank)
output.write_text("%d\\n" % total * 5000)
kit.artifact(output)
if asked:
    sys.exit(7)
kit.metric("total", total, "1")
"""
SCRIPT = "steps.py"
COPIES = 5000
MAX_RUNS = 10_000

# Told where a node keeps a run: {attempt: {log: its bytes}}.
WRITTEN = """
import base64, json, os, sys
from pathlib import Path
root = Path(os.path.expanduser(sys.argv[1]))
found = {}
for attempt in root.glob("attempt-*"):
    logs = {p.name: base64.b64encode(p.read_bytes()).decode() for p in attempt.glob("logs/rank-*")}
    found[attempt.name.partition("-")[2]] = logs
print(json.dumps(found))
"""

GO = "import os, sys; open(os.path.expanduser('~/go-' + sys.argv[1]), 'w').close()"

# What two runs that came to the same need not have in common.
OWN = ("run_id", "timings", "report")
# What each coordinator does anew; everything else in an attempt happens once.
ANEW = (Connected, Reached, Reserved, RendezvousOffered)

Logs = Mapping[int, Mapping[str, bytes]]


@dataclass(frozen=True, slots=True)
class Work:
    """One run of :data:`STEPS`: rank r runs on ``nodes[r]``, whose files are in ``workdir``.

    ``held``: the step that waits for :func:`release`; -1 = none does.
    """

    nodes: tuple[str, ...]
    steps: int = 8
    pause_s: float = 0.1
    held: int = -1
    workdir: str = "~/.orchestrate"

    @property
    def arguments(self) -> tuple[str, str, str]:
        """Of the script."""
        return str(self.steps), f"{self.pause_s:g}", str(self.held)

    def totals(self, rank: int) -> list[int]:
        """The total after each step."""
        return [sum(range(step + 1)) * (rank + 1) for step in range(self.steps)]

    def printed(self, rank: int) -> str:
        """All that the rank writes, in however many attempts."""
        return "".join(f"step {step} total {t}\n" for step, t in enumerate(self.totals(rank)))

    def artifact(self, rank: int) -> str:
        """What ``rank-<R>.txt`` holds."""
        return f"{self.totals(rank)[-1]}\n" * COPIES


def essence(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result without what is the run's own."""
    rungs = [{k: v for k, v in rung.items() if k != "seconds"} for rung in result["ladder"]]
    return {**{k: v for k, v in result.items() if k not in OWN}, "ladder": rungs}


def await_moment(job: Job, type: str, count: int = 1, within_s: float = 40.0) -> None:
    """Until ``count`` such events came, to a millisecond; or the end, if that was faster."""
    deadline = Deadline(within_s)
    while len(job.events(type)) < count and not job.over:
        assert not deadline.passed, f"{job.run} never came to {count} {type}: {job.err}"
        time.sleep(0.001)


def resumed(desk: Desk, run: str, *options: str) -> tuple[Job, Ending]:
    """`orchestrate resume RUN`, to its end."""
    job = desk.resume(run, *options)
    return job, job.end()


def release(place: Machine, run: str, hosts: Iterable[str]) -> None:
    """Let ranks that wait for it go on, now and whenever they come to it."""
    for host in hosts:
        argv = place.exec_argv(host, [sys.executable, "-I", "-S", "-c", GO, run])
        subprocess.run(argv, timeout=scaled(30), check=True)


def journal(folder: Path) -> list[dict[str, Any]]:
    """The journal's complete events, in order."""
    path = folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line)["event"] for line in lines if line.endswith(b"\n")]


def written(place: Machine, work: Work, host: str, run: str) -> Logs:
    """What the ranks of ``run`` wrote on ``host``, as the node itself kept it, by attempt."""
    root = f"{work.workdir}/node/runs/{run}/{host}"
    argv = place.exec_argv(host, [sys.executable, "-I", "-S", "-c", WRITTEN, root])
    done = subprocess.run(argv, capture_output=True, text=True, timeout=scaled(30), check=True)
    found = json.loads(done.stdout)
    return {
        int(attempt): {name: base64.b64decode(data) for name, data in found[attempt].items()}
        for attempt in sorted(found, key=int)
    }


# ---- what must be true at the end --------------------------------------------------------------


def faults(folder: Path, place: Machine, work: Work) -> Iterator[str]:
    """All that is wrong with a run of ``work`` that succeeded, in words."""
    for host, left in remains(place, folder.name, work.nodes).items():
        yield f"left on {host}: {left}"
    for rank, node in enumerate(work.nodes):
        kept = written(place, work, node, folder.name)
        yield from _wrong_logs(folder, node, rank, kept, work)
        yield from _wrong_artifacts(folder, node, rank, work)
    yield from _wrong_series(folder, work)
    yield from _repeated_events(folder)
    rows = open_history(Layout(folder.parents[1])).read_runs(RunQuery(limit=MAX_RUNS))
    if [row.status for row in rows if row.run_id == folder.name] != ["succeeded"]:
        yield "not in the history, or with another end"


def _wrong_logs(folder: Path, node: str, rank: int, kept: Logs, work: Work) -> Iterator[str]:
    for attempt, logs in kept.items():
        for name, data in logs.items():
            copy = log_of(folder, node, name, attempt)
            if (copy.read_bytes() if copy.exists() else b"") != data:
                yield f"{copy} is not what the rank wrote"
    printed = b"".join(logs.get(f"rank-{rank}.out", b"") for logs in kept.values())
    if printed.decode() != work.printed(rank):
        yield f"rank {rank} wrote {printed!r}"


def log_of(folder: Path, node: str, file: str, attempt: int) -> Path:
    """The coordinator's copy of a log."""
    logs = folder / "logs" / node
    return (logs if attempt == 1 else logs / f"attempt-{attempt}") / file


def _wrong_artifacts(folder: Path, node: str, rank: int, work: Work) -> Iterator[str]:
    path = folder / "artifacts" / node / f"rank-{rank}.txt"
    if not path.exists() or path.read_text() != work.artifact(rank):
        yield f"{path} is missing or wrong"
    for part in (folder / "artifacts").glob("**/.partial*"):
        yield f"half a file: {part}"


def _wrong_series(folder: Path, work: Work) -> Iterator[str]:
    """Each step of each rank once, with the right value; and the final figures, which a rank that
    had ended tells again in another attempt.
    """
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    points = [json.loads(line) for line in lines]
    found = Counter((p["rank"], p["step"], p["value"]) for p in points if p["step"] is not None)
    due = Counter(
        (rank, step, float(total))
        for rank in range(len(work.nodes))
        for step, total in enumerate(work.totals(rank))
    )
    if found != due:
        yield f"steps lost: {dict(due - found)}; counted twice: {dict(found - due)}"
    final = {(p["rank"], p["value"], p["attempt"]) for p in points if p["step"] is None}
    if {(rank, value) for rank, value, _ in final} != {
        (rank, work.totals(rank)[-1]) for rank in range(len(work.nodes))
    } or len(final) != sum(p["step"] is None for p in points):
        yield f"final figures: {final}"


def _repeated_events(folder: Path) -> Iterator[str]:
    """What says nothing new is not written down; and what happens on a node happens once in an
    attempt, however many coordinators there are.
    """
    run = RunFolder(folder)
    state = new_state(read_request(run))
    seen: set[tuple[object, ...]] = set()
    for _, event in read_events(run, JournalReader(run.journal).read_all()):
        before, (state, _) = state, machine.step(state, event)
        if state is before:
            yield f"no news, but in the journal: {event}"
        coordinator = before.epoch if isinstance(event, ANEW) else 0
        if (occurrence := (before.attempt, coordinator, repr(event))) in seen:
            yield f"twice in the journal: {event}"
        seen.add(occurrence)
