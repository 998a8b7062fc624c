"""How a suite stands, as it runs: a table that is redrawn, lines, or JSON lines."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.core.suite.step_records import StepOutcome, StepState
from orchestrator.view.progress.json_lines import dump_line
from orchestrator.view.terminal.terminal import LineWriter
from orchestrator.view.terminal.text import brief_text, format_seconds

REFRESH_PER_S = 4
STYLES = {
    StepState.PASSED: "green",
    StepState.FAILED: "red",
    StepState.DEGRADED: "yellow",
    StepState.STOPPED: "yellow",
    StepState.SKIPPED: "dim",
    StepState.BEGUN: "bold",
}
WORDS = {StepState.BEGUN: "running"}


def state_word(outcome: StepOutcome) -> str:
    """How a step stands while its suite is running."""
    return WORDS.get(outcome.state, outcome.state.value)


class SuiteLines:
    """One line for each step that begins or ends, and for nothing else."""

    def __init__(self, out: LineWriter) -> None:
        self._out = out

    def on_step(self, outcome: StepOutcome) -> None:
        took = "" if outcome.seconds is None else f", {format_seconds(outcome.seconds)}"
        reason = f": {brief_text(outcome.reason, 300)}" if outcome.reason else ""
        self._out.line(f"{outcome.step}: {state_word(outcome)}{took}{reason}")

    def on_line(self, line: str) -> None:
        pass

    def on_note(self, text: str) -> None:
        self._out.line(brief_text(text, 400))

    def close(self) -> None:
        pass


class SuiteJsonLines:
    """``{"type": "event", "time", "run", "event": {"type": "Step", ...}}``; the result is written
    by the command.
    """

    def __init__(self, out: LineWriter, run_id: str) -> None:
        self._out = out
        self._run_id = run_id

    def on_step(self, outcome: StepOutcome) -> None:
        self._write(
            {
                "type": "Step",
                "step": outcome.step,
                "state": outcome.state.value,
                "run_id": outcome.run_id,
                "seconds": outcome.seconds,
                "reason": outcome.reason,
            }
        )

    def on_line(self, line: str) -> None:
        pass

    def on_note(self, text: str) -> None:
        self._write({"type": "Note", "text": text})

    def close(self) -> None:
        pass

    def _write(self, event: dict[str, Any]) -> None:
        record = {"type": "event", "time": time.time(), "run": self._run_id, "event": event}
        self._out.line(dump_line(record))


class SuiteTable:
    """A table of all steps, redrawn in place; the running one with what it printed last."""

    def __init__(self, stream: TextIO, outcomes: Iterable[StepOutcome], *, color: bool) -> None:
        self._outcomes = {outcome.step: outcome for outcome in outcomes}
        self._line = ""
        console = Console(
            file=stream, force_terminal=True, no_color=not color, highlight=False, markup=False
        )
        self._live = Live(
            console=console,
            get_renderable=self._draw,
            refresh_per_second=REFRESH_PER_S,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._live.start()

    def on_step(self, outcome: StepOutcome) -> None:
        self._outcomes = {**self._outcomes, outcome.step: outcome}
        self._line = ""

    def on_line(self, line: str) -> None:
        self._line = line

    def on_note(self, text: str) -> None:
        self._live.console.print(Text(brief_text(text, 400), style="dim"))

    def close(self) -> None:
        self._live.stop()

    def _draw(self) -> Table:
        table = Table.grid(padding=(0, 2), expand=False)
        for least in (12, 8, 7, 0):
            table.add_column(no_wrap=True, overflow="ellipsis", min_width=least)
        for outcome in self._outcomes.values():
            table.add_row(*self._cells(outcome))
        return table

    def _cells(self, outcome: StepOutcome) -> tuple[Text, ...]:
        is_running = outcome.since is not None
        took = outcome.seconds_until(time.time())
        said = self._line if is_running else outcome.reason
        return (
            Text(outcome.step),
            Text(state_word(outcome), style=STYLES.get(outcome.state, "")),
            Text("" if took is None else format_seconds(took)),
            Text(brief_text(said, 200), style="" if is_running else "dim"),
        )
