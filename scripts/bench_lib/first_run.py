"""The README's first command in a fresh clone with empty caches, against that of another commit.

Both are cloned from this checkout, with a home directory of their own each time, so that both build
their environments anew. Commits are taken in turn; the machine's load is that of the moment.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .base.bed import ROOT
from .base.errors import BenchError
from .base.report import table
from .base.rounds import say
from .base.stats import rotated, summarize

REAPED = Path(__file__).parent / "programs" / "reaped.py"
COMMAND = ("./scripts/orchestrate", "--cluster", "local", "--workload", "finetune", "--json")
LIMIT_S = 7200.0
GOAL = 0.5  # of the other commit's wall and CPU time
GATED = ("train_loss_final", "function_call_exact_match")


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRun:
    """One first run of a commit: seconds, and what it trained."""

    commit: str
    wall_s: float
    cpu_s: float
    gated: dict[str, float]


def first_runs(commits: Sequence[str], rounds: int) -> Iterator[FirstRun]:
    """Each commit once a round, each round beginning with another."""
    for number in range(rounds):
        for commit in rotated(commits, number):
            with tempfile.TemporaryDirectory(prefix="orchestrate-bench-") as scratch:
                run = _first_run(commit, Path(scratch))
            say(f"first-run: {commit}: {run.wall_s:.0f} s, CPU {run.cpu_s:.0f} s")
            yield run


def _first_run(commit: str, scratch: Path) -> FirstRun:
    clone, home, taken = scratch / "clone", scratch / "home", scratch / "taken.json"
    home.mkdir()
    _git("clone", "--quiet", "--no-checkout", str(ROOT), str(clone))
    _git("-C", str(clone), "checkout", "--quiet", "--detach", commit)
    done = subprocess.run(
        [sys.executable, str(REAPED), str(taken), *COMMAND],
        cwd=clone,
        env=_environment(home),
        capture_output=True,
        timeout=LIMIT_S,
        check=False,
    )
    figures = json.loads(taken.read_text()) if taken.exists() else {"code": done.returncode}
    if figures["code"]:
        tail = done.stderr[-2000:].decode(errors="replace")
        raise BenchError(f"the first run of {commit} ended with {figures['code']}: {tail}")
    result = json.loads(done.stdout.splitlines()[-1])
    gated = {name: float(result["metrics"][name]["value"]) for name in GATED}
    return FirstRun(commit=commit, wall_s=figures["wall_s"], cpu_s=figures["cpu_s"], gated=gated)


def _environment(home: Path) -> dict[str, str]:
    """This process's, with `home` in place of everything that could hold a cache."""
    caches = {"XDG_CACHE_HOME", "PIP_CACHE_DIR", "ORCHESTRATE_HOME", "ORCHESTRATE_PYTHON"}
    kept = {name: value for name, value in os.environ.items() if name not in caches}
    return {**kept, "HOME": str(home)}


def _git(*arguments: str) -> None:
    git = shutil.which("git")
    if git is None:
        raise BenchError("git is missing")
    done = subprocess.run([git, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"git {arguments[0]}: {done.stderr.strip()}")


def ratios(runs: Sequence[FirstRun], ours: str, other: str) -> dict[str, float]:
    """Our median by the other's: of wall time and of CPU time."""
    medians = {
        commit: (
            summarize([run.wall_s for run in runs if run.commit == commit]).median,
            summarize([run.cpu_s for run in runs if run.commit == commit]).median,
        )
        for commit in (ours, other)
    }
    wall, cpu = (a / b for a, b in zip(medians[ours], medians[other], strict=True))
    return {"wall": wall, "CPU": cpu}


def first_run_markdown(runs: Sequence[FirstRun], ours: str, other: str) -> str:
    """A row for each run, then the ratios of the medians."""
    rows = [
        (
            run.commit,
            f"{run.wall_s:.0f}",
            f"{run.cpu_s:.0f}",
            *(f"{run.gated[name]:.4f}" for name in GATED),
        )
        for run in runs
    ]
    found = ratios(runs, ours, other)
    judged = [
        (f"{name}, {ours} / {other}", f"{value:.2f}", f"<= {GOAL}", _word(value))
        for name, value in found.items()
    ]
    return "\n\n".join(
        [
            table(("commit", "wall s", "CPU s", *GATED), rows),
            table(("ratio of medians", "measured", "target", "verdict"), judged),
        ]
    )


def _word(ratio: float) -> str:
    return "met" if ratio <= GOAL else "MISSED"
