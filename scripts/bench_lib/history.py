"""A history of many runs: how long commands take to answer from it, beside MLflow's local store."""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from .base.errors import BenchError
from .base.report import table

if TYPE_CHECKING:
    from orchestrator.adapters.history.stored_run import HistoryEntry

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).parent / "programs" / "mlflow_history.py"
KEYS = 10
LIMIT_S, LIMIT_MB, LIMIT_RATIO = 0.5, 150.0, 0.1
TIMEOUT_S = 3600.0
BATCH = 500
FIRST_RUN_S = 1_700_000_000.0
INSTALL_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One process that answered: wall and processor time in seconds, peak memory in MB.

    ``ask_s``: of the wall time, what MLflow took once it was imported.
    """

    question: str
    who: str
    wall_s: float
    cpu_s: float
    peak_mb: float
    ask_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A question with the medians of both; ``ratio`` of wall times, ours over theirs."""

    question: str
    ours: Answer
    theirs: Answer

    @property
    def ratio(self) -> float:
        return self.ours.wall_s / self.theirs.wall_s

    @property
    def met(self) -> bool:
        fast = self.ours.wall_s <= LIMIT_S and self.ratio <= LIMIT_RATIO
        return fast and self.ours.peak_mb <= LIMIT_MB


def history_rows(
    python: str, mlflow: Path | None, *, runs: int, figures: int, repeats: int
) -> Iterator[Row]:
    """Fill both stores with the same runs, then ask both in turn. Raises :class:`BenchError`."""
    with tempfile.TemporaryDirectory(prefix="orchestrate-bench-") as scratch:
        other = str((mlflow or make_environment(Path(scratch, "venv"))) / "bin" / "python")
        home, store = Path(scratch, "home"), Path(scratch, "mlflow.db")
        _say(f"filling our history with {runs} runs")
        fill_history(home / "history.sqlite", runs, figures)
        _say("filling MLflow's store")
        run_program([other, PROGRAM, "fill", store, runs, figures, KEYS], {}, TIMEOUT_S)
        latest = runs - 1
        kind = f"k{latest % KEYS}"
        ours = {
            "history": ["history", "--workload", kind, "--json"],
            "compare": ["compare", "last:10", f"run-{latest}", "--json"],
            "trend": ["history", "--workload", kind, "--metric", "figure0", "--limit", "200"],
        }
        theirs = {"history": kind, "compare": f"{latest:032x}", "trend": kind}
        for question, words in ours.items():
            taken: dict[str, list[Answer]] = {"ours": [], "theirs": []}
            for _ in range(repeats + 1):
                mine = [python, "-P", "-m", "orchestrator", *words]
                environment = {"ORCHESTRATE_HOME": str(home), "PYTHONPATH": str(ROOT)}
                taken["ours"].append(_ask(question, "ours", mine, environment))
                rival = [other, PROGRAM, question, store, theirs[question]]
                taken["theirs"].append(_ask(question, "MLflow", rival, {}))
            # The first of each reads the file from disk and compiles modules.
            yield Row(
                question=question,
                ours=_middle(taken["ours"][1:]),
                theirs=_middle(taken["theirs"][1:]),
            )


def fill_history(path: Path, runs: int, figures: int) -> None:
    """Runs of ``KEYS`` keys. The first of each key is recorded as the product does it; the others
    are rows like its rows, in large transactions.
    """
    sys.path.insert(0, str(ROOT))
    from orchestrator.adapters.history.open_store import sqlite_history

    store = sqlite_history(path)
    for number in range(KEYS):
        store.record_run(_entry(number, figures))
    with sqlite3.connect(path) as connection:
        for start in range(KEYS, runs, BATCH):
            numbers = range(start, min(start + BATCH, runs))
            connection.executemany(_COPY_RUN, [_run_row(number) for number in numbers])
            connection.executemany(
                "INSERT INTO figure VALUES (?, ?, ?)", _figures(numbers, figures)
            )
            connection.executemany(_COPY_DOCUMENT, [(n + 1, n % KEYS + 1) for n in numbers])
        connection.execute("PRAGMA optimize")
    connection.close()


_COPY_RUN = """
INSERT INTO run SELECT ?, ?, ?, ?, cluster, workload, preset, status, code, commit_id, key_number
FROM run WHERE number = ?
"""
_COPY_DOCUMENT = (
    "INSERT INTO run_document SELECT ?, result, curves FROM run_document WHERE run_number = ?"
)


def _run_row(number: int) -> tuple[int, str, float, float, int]:
    at = FIRST_RUN_S + 60.0 * number
    return number + 1, f"run-{number}", at, at + 1.0, number % KEYS + 1


def _figures(numbers: range, figures: int) -> Iterator[tuple[int, int, float]]:
    source = random.Random(numbers.start)
    for number in numbers:
        for index in range(figures):
            yield number + 1, index + 1, 100 * source.gauss(1, 0.01)


def _entry(number: int, figures: int) -> HistoryEntry:
    """A run with ``figures`` figures, of one of the keys."""
    from orchestrator.adapters.history.stored_run import HistoryEntry, figures_of
    from orchestrator.core.base.errors import ExitCode
    from orchestrator.core.history.run_record import ComparisonKey, RunRecord
    from orchestrator.core.model.workload import Direction
    from orchestrator.core.verdict.result import MetricResult, Result, Status

    result = Result(
        run_id=f"run-{number}",
        status=Status.SUCCEEDED,
        exit_code=ExitCode.DONE,
        cluster="c",
        workload=f"k{number % KEYS}",
        launcher="torchrun",
        world_size=8,
        metrics={
            f"figure{i}": MetricResult(value=100.0, unit="tok/s", direction=Direction.HIGHER)
            for i in range(figures)
        },
    )
    record = RunRecord(
        run_id=result.run_id,
        started=FIRST_RUN_S + 60.0 * number,
        finished=FIRST_RUN_S + 60.0 * number + 1.0,
        cluster="c",
        workload=result.workload,
        status=result.status,
        key=ComparisonKey(workload=result.workload, gpus="8 x NVIDIA H200"),
        figures=figures_of(result),
    )
    return HistoryEntry(record=record, result=result)


def make_environment(folder: Path) -> Path:
    """A temporary environment with MLflow."""
    _say("installing MLflow")
    venv.create(folder, with_pip=True)
    install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "mlflow"]
    run_program(install, {}, INSTALL_S)
    return folder


def history_markdown(rows: Sequence[Row]) -> str:
    """The report."""
    headings = ("question", "ours", "CPU", "peak", "MLflow", "of it queries", "CPU", "ratio", "")
    lines = [
        (
            row.question,
            f"{row.ours.wall_s:.3f} s",
            f"{row.ours.cpu_s:.3f} s",
            f"{row.ours.peak_mb:.0f} MB",
            f"{row.theirs.wall_s:.2f} s",
            f"{row.theirs.ask_s or 0:.2f} s",
            f"{row.theirs.cpu_s:.2f} s",
            f"{row.ratio:.3f}",
            "met" if row.met else "MISSED",
        )
        for row in rows
    ]
    target = f"Targets: {LIMIT_S:g} s, {LIMIT_MB:g} MB, a ratio of {LIMIT_RATIO:g}."
    return f"{table(headings, lines)}\n\n{target}\n"


def _ask(question: str, who: str, argv: Sequence[object], environment: dict[str, str]) -> Answer:
    began = time.perf_counter()
    output, usage = run_program(argv, environment, TIMEOUT_S)
    wall = time.perf_counter() - began
    ask_s = json.loads(output)["ask_s"] if who == "MLflow" else None
    return Answer(
        question=question,
        who=who,
        wall_s=wall,
        cpu_s=usage[0],
        peak_mb=usage[1],
        ask_s=ask_s,
    )


def _middle(answers: Sequence[Answer]) -> Answer:
    """The median of each quantity."""
    first = answers[0]
    asked = [answer.ask_s for answer in answers if answer.ask_s is not None]
    return Answer(
        question=first.question,
        who=first.who,
        wall_s=median(answer.wall_s for answer in answers),
        cpu_s=median(answer.cpu_s for answer in answers),
        peak_mb=max(answer.peak_mb for answer in answers),
        ask_s=median(asked) if asked else None,
    )


def run_program(
    argv: Sequence[object], environment: dict[str, str], timeout_s: float
) -> tuple[bytes, tuple[float, float]]:
    """Standard output, and (processor seconds, peak MB) of the process."""
    words = [str(word) for word in argv]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            words,
            env={**os.environ, **environment},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )
        usage = _reap(process, timeout_s)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            told = errors.read()[-2000:].decode(errors="replace")
            raise BenchError(f"{' '.join(words[:5])} ended with {process.returncode}: {told}")
        return output.read(), usage


def _reap(process: subprocess.Popen[bytes], timeout_s: float) -> tuple[float, float]:
    """Wait by ``wait4``, which alone tells the peak memory of one process."""
    deadline = time.monotonic() + timeout_s
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
        if time.monotonic() > deadline:
            process.kill()
            process.wait()
            raise BenchError(f"no end after {timeout_s:g} s")
        time.sleep(0.002)


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
