"""Ranks that save at the first SIGTERM and leave at the second: how many runs keep what they save.

Two hosts with two ranks each. Every other run ends because a rank of the second host fails, the
others because the user stops them.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .base.bed import ROOT, Bed
from .base.errors import BenchError
from .base.report import table
from .base.rounds import say

HOSTS, RANKS_PER_HOST = 2, 2
LAUNCHERS = ("torchrun", "direct", "ray")
SAVE_S, GRACE_S = 0.5, 60.0
READY_S, END_S = 240.0, 240.0
POLL_S = 0.05
PROGRAM = "save_on_term.py"
FAILS, STOPPED = "a rank fails", "Ctrl-C"
CODES = {FAILS: 1, STOPPED: 130}


@dataclass(frozen=True, slots=True, kw_only=True)
class SavingRun:
    """One run: what it ended of, and what its ranks did about it.

    ``lost``: ranks whose checkpoint did not come home. ``asked_again``: ranks that got a second
    signal. ``code``: the exit code of the run.
    """

    launcher: str
    reason: str
    lost: tuple[int, ...]
    asked_again: tuple[str, ...]
    code: int
    seconds: float

    @property
    def kept(self) -> bool:
        """Every checkpoint is there, and nobody was asked twice."""
        return not self.lost and not self.asked_again and self.code == CODES[self.reason]


class _Output:
    """The events of a run, as they come."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._lines: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, args=(stream,), daemon=True)
        self._thread.start()

    def _read(self, stream: IO[bytes]) -> None:
        for line in stream:
            record = json.loads(line)
            if record["type"] == "event" and record["event"]["type"] == "Log":
                self._lines.append(record["event"])

    def sources(self, text: str) -> list[str]:
        """Where a line came from, as node/file."""
        found = [each for each in list(self._lines) if each["line"] == text]
        return [f"{each['node']}/{each['file']}" for each in found]

    def finish(self) -> None:
        self._thread.join(END_S)


def saving_runs(bed: Bed, launchers: Sequence[str], count: int) -> Iterator[SavingRun]:
    """``count`` runs with each launcher. Raises :class:`BenchError` for one that does not begin."""
    shutil.copy(ROOT / "scripts" / "bench_lib" / "programs" / PROGRAM, bed.folder)
    for launcher in launchers:
        for number in range(1, count + 1):
            reason = FAILS if number % 2 else STOPPED
            done = _perform(bed, launcher, reason, f"{launcher}-{number}")
            word = "kept" if done.kept else f"LOST ranks {done.lost}, again {done.asked_again}"
            say(f"sigterm: {launcher} {number} of {count}, {done.seconds:.0f} s: {reason}: {word}")
            yield done


def _perform(bed: Bed, launcher: str, reason: str, run: str) -> SavingRun:
    began = time.monotonic()
    words = ["--launcher", launcher, "--ranks-per-node", str(RANKS_PER_HOST), "--no-fabric-probe"]
    words += ["--json", "--follow", "--run-id", run, "--budget", f"grace={GRACE_S:g}"]
    cluster = str(bed.inventory(HOSTS))
    command = bed.orchestrate("run", "--cluster", cluster, *words, "--", PROGRAM, f"{SAVE_S:g}")
    running = subprocess.Popen(
        list(command.argv),
        env={**os.environ, **command.env},
        cwd=command.cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert running.stdout is not None
    output = _Output(running.stdout)
    try:
        _wait_until_ready(output, running, run)
        if reason == FAILS:
            (bed.hosts.home(bed.names(HOSTS)[-1]) / f"fail-{run}").touch()
        else:
            running.send_signal(signal.SIGINT)
        code = running.wait(END_S)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"run {run} did not end within {END_S:g} s") from error
    finally:
        running.kill()
        running.wait()
    output.finish()
    return SavingRun(
        launcher=launcher,
        reason=reason,
        lost=lost_ranks(Path(bed.env["ORCHESTRATE_HOME"]) / "runs" / run, reason),
        asked_again=tuple(output.sources("asked 2")),
        code=code,
        seconds=time.monotonic() - began,
    )


def _wait_until_ready(output: _Output, running: subprocess.Popen[bytes], run: str) -> None:
    deadline = time.monotonic() + READY_S
    while len(output.sources("ready")) < HOSTS * RANKS_PER_HOST:
        if running.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"the ranks of run {run} did not begin")
        time.sleep(POLL_S)


def lost_ranks(folder: Path, reason: str) -> tuple[int, ...]:
    """Of all ranks but the one that failed."""
    ranks = HOSTS * RANKS_PER_HOST
    expected = range(ranks - 1 if reason == FAILS else ranks)
    saved = {path.name for path in folder.glob("artifacts/*/saved-*")}
    return tuple(rank for rank in expected if f"saved-{rank}" not in saved)


def saving_markdown(machine: dict[str, str], runs: Sequence[SavingRun]) -> str:
    """The whole report."""
    rows = []
    for launcher in dict.fromkeys(run.launcher for run in runs):
        mine = [run for run in runs if run.launcher == launcher]
        by_reason = ([run for run in mine if run.reason == why] for why in CODES)
        rows.append((launcher, *map(_kept_of, (mine, *by_reason))))
    facts = table(("what", "value"), list(machine.items()))
    headings = ("launcher", "runs that kept every checkpoint", *CODES)
    return f"{facts}\n\n{table(headings, rows)}\n"


def _kept_of(runs: Sequence[SavingRun]) -> str:
    return f"{sum(run.kept for run in runs)} of {len(runs)}"
