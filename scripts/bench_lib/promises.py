"""Times that the product promises, each as measured by the test that shows it, and the verdict."""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .base.bed import ROOT, run_tool
from .base.errors import BenchError
from .base.report import table
from .base.rounds import say, say_round

# One after the other, without what else a test run prints or keeps.
OPTIONS = ("-m", "promise", "-q", "--no-header", "-p", "no:cacheprovider")
NOTHING_SELECTED = 5  # pytest's exit code
ENDING_S = 60.0
ALL_MIN = 9.0  # what all of them took


@dataclass(frozen=True, slots=True, kw_only=True)
class Promised:
    """A time with its limit, and what it was in each repeat, all in seconds."""

    what: str
    promised_s: float
    seconds: tuple[float, ...]
    tests: tuple[str, ...]

    @property
    def kept(self) -> bool:
        return max(self.seconds) <= self.promised_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Promises:
    """All that was measured. ``sound``: every test passed, so that nothing is missing."""

    times: tuple[Promised, ...]
    sound: bool

    @property
    def kept(self) -> bool:
        return all(time.kept for time in self.times)


class Recorded:
    """What tests have written of the times that they measured, also while they run."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._codes: list[int] = []

    def __len__(self) -> int:
        return len(self._lines())

    def ended(self, code: int) -> None:
        """A repeat is over."""
        self._codes.append(code)

    def promises(self) -> Promises:
        """All of it so far."""
        times = tuple(grouped(map(json.loads, self._lines())))
        return Promises(times=times, sound=bool(self._codes) and not any(self._codes))

    def _lines(self) -> list[str]:
        text = self.file.read_text() if self.file.exists() else ""
        return [line for line in text.splitlines(keepends=True) if line.endswith("\n")]


def measure_promises(
    python: str, repeats: int, chosen: Sequence[str], recorded: Recorded
) -> Promises:
    """Run the tests that measure promised times, ``repeats`` times in a row.

    ``chosen``: files, folders or tests, relative to the checkout; empty: all. Raises BenchError
    when ``python`` has no pytest, or nothing was measured.
    """
    _need_pytest(python)
    command = [python, "-P", "-m", "pytest", *OPTIONS, f"--promises={recorded.file}", *chosen]
    codes = []
    if not chosen:
        say(f"promises: all of them take about {ALL_MIN:g} minutes a repeat on two cores")
    for number in range(1, repeats + 1):
        began = time.monotonic()
        codes.append(_run(command))
        recorded.ended(codes[-1])
        say_round("promises", number, repeats, time.monotonic() - began)
    if not recorded:
        reason = "no test matches" if NOTHING_SELECTED in codes else "see above"
        raise BenchError(f"no promised time was measured: {reason}")
    return recorded.promises()


def _run(command: Sequence[str]) -> int:
    """The exit code. When we are stopped, the tests are too, and take their hosts down first."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr, start_new_session=True)
    try:
        return process.wait()
    except BaseException:
        process.send_signal(signal.SIGINT)
        process.wait(ENDING_S)
        raise


def _need_pytest(python: str) -> None:
    try:
        run_tool([python, "-c", "import pytest, pytest_timeout"])
    except BenchError as error:
        remedy = (
            "next: scripts/test fast, which makes .venv/dev-*, then --python .venv/dev-*/bin/python"
        )
        raise BenchError(f"{python} has not what the tests need; {remedy}") from error


def grouped(lines: Iterable[Mapping[str, object]]) -> list[Promised]:
    """Lines of ``--promises`` by what they measured, in the order in which that came first."""
    by: dict[tuple[str, float], list[tuple[float, str]]] = {}
    for line in lines:
        key = str(line["what"]), float(str(line["promised_s"]))
        by.setdefault(key, []).append((float(str(line["seconds"])), str(line["test"])))
    return [
        Promised(
            what=what,
            promised_s=promised_s,
            seconds=tuple(seconds for seconds, _ in found),
            tests=tuple(dict.fromkeys(test for _, test in found)),
        )
        for (what, promised_s), found in by.items()
    ]


def promises_markdown(machine: Mapping[str, str], promises: Promises) -> str:
    """The whole report."""
    facts = table(("what", "value"), list(machine.items()))
    headings = ("what", "promised", "measured: median (worst)", "verdict", "test")
    rows = [
        (
            time.what,
            f"{time.promised_s:g} s",
            f"{statistics.median(time.seconds):.2f} s ({max(time.seconds):.2f} s)",
            "kept" if time.kept else "BROKEN",
            ", ".join(sorted({test.partition("::")[0] for test in time.tests})),
        )
        for time in promises.times
    ]
    return f"{facts}\n\n{table(headings, rows)}\n"
