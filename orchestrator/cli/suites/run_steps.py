"""Run the steps of a suite, each as an ordinary run in a process of its own."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.adapters.run_process import GRACE_S, CommandOutcome, run_process
from orchestrator.adapters.store.background_command import own_command, own_environment
from orchestrator.adapters.store.end_of_log import last_line
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.store.liveness import Liveness, liveness, read_identity
from orchestrator.adapters.store.run_list import last_written, read_result
from orchestrator.adapters.suite.suite_folder import (
    SuiteFolder,
    SuiteOrder,
    append_step,
    read_steps,
)
from orchestrator.cli.run_words import UNWATCHED
from orchestrator.cli.suites.step_requests import step_words
from orchestrator.core.suite.step_records import (
    Pursuit,
    StepOutcome,
    StepRecord,
    StepRecordKind,
    StepState,
    fold_steps,
    open_steps,
    pursue_step,
)
from orchestrator.core.suite.suite_model import Step, Suite
from orchestrator.core.verdict.result import Result, Status

MOST_TURNS = 4  # to bring one run to its end: run, attach, resume, stop
SHOWN_BYTES = 4096


class SuiteView(Protocol):
    """Who watches a suite. Calls must be quick and must not raise."""

    def on_step(self, outcome: StepOutcome) -> None:
        """A step stands differently."""

    def on_line(self, line: str) -> None:
        """What the run of the step that is under way printed last; called some times a second."""

    def on_note(self, text: str) -> None:
        """Something worth a line."""

    def close(self) -> None:
        """No more comes."""


@dataclass(slots=True, kw_only=True)
class StepRunner:
    """Works through the open steps of one run of a suite, alone; see ``SuiteFolder.lock``."""

    layout: Layout
    folder: SuiteFolder
    order: SuiteOrder
    suite: Suite
    view: SuiteView
    was_asked_to_stop: bool = field(default=False, init=False)

    def outcomes(self) -> tuple[StepOutcome, ...]:
        """How every step stands, from the log."""
        return fold_steps(self.suite, read_steps(self.folder))

    def leave_out(self) -> None:
        """Record the steps that do not run, with the reasons. A core step that the nodes do not let
        run has failed. Raises ``OSError``.
        """
        skipped, blocked = self.order.skipped, self.order.blocked
        for outcome in open_steps(self.outcomes()):
            reason = skipped.get(outcome.step) or blocked.get(outcome.step, "")
            if reason:
                refused = outcome.step not in skipped and not outcome.optional
                kind = StepRecordKind.REFUSED if refused else StepRecordKind.SKIPPED
                self._record(kind, outcome.step, reason=reason)

    def run_open_steps(self) -> None:
        """One attempt at every step that is not over; a step that fails ends no other. Raises
        ``OSError`` where the log cannot be written.
        """
        for outcome in open_steps(self.outcomes()):
            if self.was_asked_to_stop:
                return
            self._run_step(self.suite.step(outcome.step), outcome)

    def _run_step(self, step: Step, before: StepOutcome) -> None:
        run_id = before.run_id or self.folder.step_run_id(step.name)
        deadline = time.monotonic() + step.limit_s - self._record_start(before, run_id)
        again = before.state is StepState.STOPPED
        ended, began = CommandOutcome(0), False
        for _ in range(MOST_TURNS):
            left = deadline - time.monotonic()
            words = self._words(step, run_id, again=again, overdue=left <= 0)
            if not words:
                break
            again, began = False, True
            ended = self._run_command(step, words, left if left > 0 else GRACE_S)
            if ended.was_asked or not self.layout.run(run_id).path.exists():
                break
        self._record_end(step, run_id, ended, overdue=time.monotonic() >= deadline, here=began)

    def _record_start(self, before: StepOutcome, run_id: str) -> float:
        """That the run begins, or is continued: the seconds of its limit that are spent."""
        if before.state is StepState.WAITING:
            self._record(StepRecordKind.STARTED, before.step, run_id=run_id)
            return 0.0
        run = self.layout.run(run_id)
        alive = liveness(read_identity(run.coordinator)) is Liveness.ALIVE
        spent = before.seconds_until(time.time() if alive else last_written(run))
        self._record(StepRecordKind.CONTINUED, before.step, run_id=run_id, seconds=spent)
        self.view.on_note(f"{before.step}: continued, run {run_id}")
        return spent or 0.0

    def _words(self, step: Step, run_id: str, *, again: bool, overdue: bool) -> list[str]:
        """The command that brings the run to its end; none when it is over."""
        folder = self.layout.run(run_id)
        result = read_result(folder)
        pursuit = pursue_step(
            exists=folder.path.exists(),
            alive=liveness(read_identity(folder.coordinator)) is Liveness.ALIVE,
            ended=result.status if result is not None else None,
            again=again,
            overdue=overdue,
        )
        if pursuit is Pursuit.RUN:
            return step_words(step, self.order.cluster, self.order.nodes, run_id)
        if pursuit is Pursuit.STOP:
            return [pursuit.value, run_id]
        if pursuit is Pursuit.NOTHING:
            return []
        anew = ["--retry"] if pursuit is Pursuit.RESUME and result and result.begins_anew else []
        return [pursuit.value, run_id, *anew, *UNWATCHED]

    def _run_command(self, step: Step, words: list[str], limit_s: float) -> CommandOutcome:
        output = self.folder.output(step.name)
        return run_process(
            own_command(words),
            environment=own_environment(self.layout),
            folder=os.getcwd(),  # noqa: PTH109 - as text
            output=output,
            limit_s=limit_s,
            meanwhile=lambda: self.view.on_line(last_line(output, SHOWN_BYTES)),
        )

    def _record_end(
        self, step: Step, run_id: str, ended: CommandOutcome, *, overdue: bool, here: bool
    ) -> None:
        """A run that we stopped because it took too long has failed; one that its user stopped is
        open. Where nothing was done ``here``, as its user retried it, it took what it says itself.
        """
        result = read_result(self.layout.run(run_id))
        overdue &= not ended.was_asked and (result is None or result.status is Status.STOPPED)
        self.was_asked_to_stop |= ended.was_asked
        if ended.was_asked and result is None:
            self.view.on_note(f"{step.name}: run {run_id} may still be running: orchestrate ps")
            return
        status = Status.FAILED if overdue or result is None else result.status
        self._record(
            StepRecordKind.FINISHED,
            step.name,
            run_id=run_id,
            status=status.value,
            exit_code=ended.exit_code if result is None else int(result.exit_code),
            seconds=sum(result.timings.values()) if result is not None and not here else None,
            reason=_overdue(step) if overdue else self._reason(step, result, ended.exit_code),
        )

    def _reason(self, step: Step, result: Result | None, exit_code: int) -> str:
        output = self.folder.output(step.name)
        said = last_line(output, SHOWN_BYTES)[:300] or str(output)
        if result is None:
            return f"exit {exit_code} without a result: {said}"
        if result.status is Status.STOPPED and exit_code != result.exit_code:
            return f"it could not be continued: {said}"
        if result.failure is not None:
            return result.failure.cause[:300]
        return result.warnings[0][:300] if result.status is Status.DEGRADED else ""

    def _record(
        self,
        kind: StepRecordKind,
        step: str,
        *,
        run_id: str = "",
        status: str = "",
        exit_code: int | None = None,
        seconds: float | None = None,
        reason: str = "",
    ) -> None:
        record = StepRecord(
            kind=kind,
            step=step,
            at=time.time(),
            run_id=run_id,
            status=status,
            exit_code=exit_code,
            seconds=seconds,
            reason=reason,
        )
        append_step(self.folder, record)
        self.view.on_step(next(each for each in self.outcomes() if each.step == step))


def _overdue(step: Step) -> str:
    return f"over its limit of {step.limit_s:g} s"
