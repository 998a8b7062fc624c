"""Promised times: what tests measured, by what it is, and the verdict that does not grow."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from bench_lib.base.errors import BenchError
from bench_lib.promises import Promises, Recorded, grouped, measure_promises, promises_markdown

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

    found = measure_promises(sys.executable, 1, [f"{file}::{SHORT}"], Recorded(tmp_path / "times"))

    assert found.sound
    assert [(time.what, time.promised_s, len(time.seconds)) for time in found.times] == [
        ("killed supervisor: run over", 20.0, 1)
    ]
    nothing = Recorded(tmp_path / "other")
    with pytest.raises(BenchError, match="no test matches"):
        measure_promises(sys.executable, 1, ["tests/bench/test_stats.py"], nothing)


def test_what_was_recorded_counts_before_the_tests_have_ended(tmp_path: Path) -> None:
    """A stop in the middle loses the test that ran, and a line that was not ended; nothing is sound
    before a repeat was passed.
    """
    recorded = Recorded(tmp_path / "times")
    assert not recorded
    line = {"what": "named", "promised_s": 5.0, "seconds": 0.2, "test": "t"}
    recorded.file.write_text(json.dumps(line) + "\n" + json.dumps(line)[:20])

    assert [time.seconds for time in recorded.promises().times] == [(0.2,)]
    assert not recorded.promises().sound
    recorded.ended(0)
    assert recorded.promises().sound
