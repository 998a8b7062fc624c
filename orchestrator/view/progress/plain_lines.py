"""Progress for what is no terminal: a line per change of state, nothing that needs redrawing."""

from __future__ import annotations

from orchestrator.core.base.figures import format_number
from orchestrator.core.run.events import Event, Phase
from orchestrator.core.run.kit_reports import Progressed, Reported
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.result import Result
from orchestrator.view.progress.board import Board, Progress
from orchestrator.view.progress.narrate import NarratedLine, Weight, narrate_event
from orchestrator.view.progress.plan_news import PlanNews
from orchestrator.view.terminal.log_lines import LogLines, is_worth_following
from orchestrator.view.terminal.terminal import RED, LineWriter, paint_text
from orchestrator.view.terminal.text import brief_text, count_noun, format_seconds

FOLD_ABOVE = 20
PROGRESS_EVERY_S = 10.0


class PlainView:
    """An observer that writes lines. Above ``FOLD_ABOVE`` nodes only the run as a whole and what
    goes wrong is told; ``verbosity`` -1 tells only the latter, 1 everything.
    """

    def __init__(
        self, out: LineWriter, *, color: bool = False, verbosity: int = 0, follow: bool = False
    ) -> None:
        self._out = out
        self._color = color
        self._verbosity = verbosity
        self._follow = follow
        self._board = Board()
        self._news = PlanNews()
        self._logs = LogLines(out.write, color=color)
        self._told_progress: tuple[float, float] = (float("-inf"), -1.0)

    def on_event(self, at: float, event: Event, state: RunState) -> None:
        phase = self._board.phase
        self._board.update(at, event, state)
        if isinstance(event, Progressed | Reported):
            self._tell_progress(at)
            return
        for line in (narrate_event(event, state), *self._news.lines(state)):
            if line is not None and line.weight >= self._threshold(state):
                self._tell(line)
        if self._board.phase is not phase:
            self._tell_phase(state)

    def on_log(self, node: str, file: str, chunk: bytes) -> None:
        if self._follow and is_worth_following(file, self._verbosity):
            self._logs.feed(node, file, chunk)

    def on_note(self, text: str) -> None:
        if self._verbosity >= 0:
            self._out.line(f"{'':12}{brief_text(text, 400)}")  # a note comes without a time

    def close(self, result: Result | None) -> None:
        del result
        self._logs.finish()

    def _threshold(self, state: RunState) -> Weight:
        if self._verbosity < 0:
            return Weight.PROBLEM
        if self._verbosity > 0:
            return Weight.DETAIL
        return Weight.RUN if len(state.nodes) > FOLD_ABOVE else Weight.NODE

    def _tell(self, line: NarratedLine) -> None:
        text = f"{brief_text(line.node)}: {line.text}" if line.node else line.text
        if line.weight is Weight.PROBLEM:
            text = paint_text(text, RED, color=self._color)
        self._out.line(f"{self._board.elapsed:8.1f} s  {text}")

    def _tell_phase(self, state: RunState) -> None:
        phase = self._board.phase
        if self._verbosity < 0 or phase in (Phase.LOAD, Phase.CONCLUDED):
            return
        if phase is Phase.WATCH and state.plan is not None:
            ranks = count_noun(state.plan.world_size, "rank")
            where = count_noun(len(state.plan.nodes), "node")
            how = f"by {state.plan.launcher}, {state.plan.rung}"
            self._tell(NarratedLine(Weight.RUN, f"running {ranks} on {where} {how}"))
        elif self._verbosity > 0 or len(state.nodes) > FOLD_ABOVE:
            self._tell(NarratedLine(Weight.RUN, f"phase {phase.value}"))

    def _tell_progress(self, at: float) -> None:
        """At most one line in ten seconds, and the last one."""
        told_at, told_done = self._told_progress
        soon = at - told_at < PROGRESS_EVERY_S
        if self._verbosity < 0 or (soon and not self._board.may_be_finished):
            return
        progress = self._board.overall()
        if progress is None or progress.done == told_done or (soon and not progress.finished):
            return
        self._told_progress = (at, progress.done)
        self._tell(NarratedLine(Weight.RUN, describe_progress(progress, self._board.fields())))


def describe_progress(progress: Progress, fields: str) -> str:
    """``40/60 steps (67 %), 3.1 steps/s, 6.5 s left, loss 0.53``."""
    unit = brief_text(progress.unit, 24)
    done = format_number(progress.done)
    parts = [f"{done} {unit}".strip()]
    if progress.total > 0:
        percent = f"{progress.fraction * 100:.0f} %"
        parts = [f"{done}/{format_number(progress.total)} {unit}".strip() + f" ({percent})"]
    if progress.rate:
        parts.append(f"{_rate(progress.rate)} {unit}/s".replace(" /s", "/s"))
        left = (progress.total - progress.done) / progress.rate
        if left > 0:
            parts.append(f"{format_seconds(left)} left")
    return ", ".join([*parts, *([fields] if fields else [])])


def _rate(value: float) -> str:
    """Three digits: a rate is an estimate."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
