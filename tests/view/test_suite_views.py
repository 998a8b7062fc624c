"""How a suite stands while it runs: lines, and a table that is redrawn."""

from __future__ import annotations

import io
import re
import time

from orchestrator.core.suite.step_records import StepOutcome, StepState
from orchestrator.view.progress.suite_views import SuiteLines, SuiteTable
from orchestrator.view.terminal.terminal import LineWriter

WAITING = StepOutcome(step="load", optional=False)
SKIPPED = StepOutcome(
    step="traced", optional=True, state=StepState.SKIPPED, reason="needs nsys\x1b[2J"
)
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def running(**fields: object) -> StepOutcome:
    now = {"state": StepState.BEGUN, "since": time.time() - 5.0, "run_id": "r", **fields}
    return StepOutcome(step="load", optional=False, **now)  # type: ignore[arg-type]


def test_lines_say_when_a_step_begins_and_ends() -> None:
    stream = io.StringIO()
    view = SuiteLines(LineWriter(stream))
    view.on_step(SKIPPED)
    view.on_step(running())
    view.on_line("rank 0: step 3 of 10")
    view.on_step(running(state=StepState.FAILED, since=None, seconds=8.0, reason="it broke"))
    view.close()

    lines = stream.getvalue().splitlines()
    assert [line.partition(",")[0] for line in lines[1:]] == ["load: running", "load: failed"]
    assert lines[2].endswith(": it broke")
    assert "\x1b" not in stream.getvalue()  # foreign text does not steer the terminal


def test_the_table_shows_what_the_running_step_printed_last() -> None:
    """Every step has its line from the beginning; output of a step is gone when it is over."""
    stream = io.StringIO()
    view = SuiteTable(stream, [WAITING, SKIPPED], color=False)
    view.on_step(running())
    view.on_line("rank 0: step 3 of 10")
    view.on_note("load: continued")
    view.close()
    shown = ESCAPES.sub("", stream.getvalue())

    assert "waiting" in shown or "running" in shown
    assert re.search(r"load +running +[\d.]+ s +rank 0: step 3 of 10", shown)
    assert re.search(r"traced +skipped +needs nsys", shown)
    assert "load: continued" in shown
