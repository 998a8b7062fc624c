"""Promised times: what tests measured, by what it is, and the verdict that does not grow."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from bench_lib.base.errors import BenchError
from bench_lib.promises import Promises, grouped, measure_promises, promises_markdown

TEST = "tests/hosts/faults/test_failures.py::test_a_killed_rank"
SHORT = "test_a_killed_supervisor_is_named"
OTHER = "tests/hosts/faults/test_deaths.py::test_a_rank_that_aborts"


def line(seconds: float, what: str = "named", test: str = TEST) -> dict[str, object]:
    return {"what": what, "seconds": seconds, "promised_s": 5.0, "test": test}


def test_one_time_over_the_promise_breaks_it() -> None:
    """Repeats of one measurement belong together, and the worst of them counts."""
    named, over = grouped([line(0.2), line(1.0, "over"), line(5.1, test=OTHER), line(0.3)])

    assert (named.what, named.seconds, named.kept) == ("named", (0.2, 5.1, 0.3), False)
    assert named.tests == (TEST, OTHER)
    assert (over.what, over.kept) == ("over", True)
    assert not Promises(times=(named, over), sound=True).kept
    assert Promises(times=(over,), sound=True).kept


def test_the_table_has_median_worst_and_verdict() -> None:
    """The limit is the promise itself, whatever the load was."""
    times = tuple(grouped([line(0.2), line(5.1), line(0.3), line(1.0, "over")]))

    text = promises_markdown({"date": "today"}, Promises(times=times, sound=True))

    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in text.splitlines()]
    file = "tests/hosts/faults/test_failures.py"
    assert ["named", "5 s", "0.30 s (5.10 s)", "BROKEN", file] in rows
    assert ["over", "5 s", "1.00 s (1.00 s)", "kept", file] in rows


@pytest.mark.processes
def test_a_test_that_measures_is_run_and_recorded(tmp_path: Path) -> None:
    """Only those that measure are selected; without any there is no verdict."""
    file = "tests/engine/run/test_faults.py"

    found = measure_promises(sys.executable, 1, [f"{file}::{SHORT}"], tmp_path)

    assert found.sound
    assert [(time.what, time.promised_s, len(time.seconds)) for time in found.times] == [
        ("killed supervisor: run over", 20.0, 1)
    ]
    (tmp_path / "other").mkdir()
    with pytest.raises(BenchError, match="no test matches"):
        measure_promises(sys.executable, 1, ["tests/bench/test_stats.py"], tmp_path / "other")
