"""Notices of runs: their end, and the moment in which one falls back for the first time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.adapters.notify.notice import Notice, Occasion
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.figures import format_figure
from orchestrator.core.run.events import Event
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.result import Result, Status

if TYPE_CHECKING:
    from orchestrator.adapters.report.finished_run import FinishedRun

OCCASIONS = {
    Status.SUCCEEDED: Occasion.FINISHED,
    Status.DEGRADED: Occasion.DEGRADED,
    Status.FAILED: Occasion.FAILED,
    Status.STOPPED: Occasion.FAILED,
}
SHOWN_FIGURES = 12


def post_end(run: FinishedRun) -> None:
    """Notify people of the run's end, by its status."""
    from orchestrator.adapters.notify.outbox import post_notice

    post_notice(run.layout, end_notice(run.result))


def end_notice(result: Result) -> Notice:
    """What is said of a run that is over."""
    lines = [f"{result.workload} on {result.cluster}: {result.status.value}"]
    if result.failure is not None:
        lines += [result.failure.cause, f"next: {result.failure.remedy}"]
    for name, metric in list(result.metrics.items())[:SHOWN_FIGURES]:
        if metric.value is not None:
            lines.append(f"{name}: {format_figure(metric.value, metric.unit)}")
    lines.append(f"orchestrate show {result.run_id}")
    return Notice(
        occasion=OCCASIONS[result.status],
        subject=f"orchestrate: {result.run_id} {result.status.value}",
        text="\n".join(lines),
        run_id=result.run_id,
    )


class FallbackNotices:
    """An observer that notifies people once, when a run falls back for the first time."""

    def __init__(self, layout: Layout, say: Callable[[str], None]) -> None:
        self._layout = layout
        self._say = say
        self._posted = False

    def on_event(self, at: float, event: Event, state: RunState) -> None:  # noqa: ARG002
        if self._posted or not state.falls:
            return
        self._posted = True
        from orchestrator.adapters.notify.outbox import try_notice

        fall, request = state.falls[0], state.request
        notice = Notice(
            occasion=Occasion.DEGRADED,
            subject=f"orchestrate: {request.run_id} falls back",
            text=f"{fall.rung.value} failed: {fall.reason}\norchestrate attach {request.run_id}",
            run_id=request.run_id,
        )
        try_notice(self._layout, notice, self._say)

    def on_log(self, node: str, file: str, chunk: bytes) -> None:
        """Output of ranks is no reason to notify anyone."""

    def on_note(self, text: str) -> None:
        """Neither are notes."""

    def close(self, result: Result | None) -> None:
        """The end is another notice."""
