"""What became of each step, from its records; what is next; how the suite ends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.core.base.errors import ExitCode
from orchestrator.core.suite.suite_model import Suite, ordered_steps
from orchestrator.core.verdict.result import Status


class StepRecordKind(StrEnum):
    """What one line of a suite's log says."""

    STARTED = "started"
    CONTINUED = "continued"
    FINISHED = "finished"
    SKIPPED = "skipped"
    REFUSED = "refused"  # it cannot run here, and is no optional step


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One line of the log; ``at`` in seconds since the epoch. ``status`` and ``exit_code`` are
    those of a finished run; ``seconds``: how long the run was under way before it is continued, or
    until it was over where others brought it to its end.
    """

    kind: StepRecordKind
    step: str
    at: float
    run_id: str = ""
    status: str = ""
    exit_code: int | None = None
    seconds: float | None = None
    reason: str = ""


class StepState(StrEnum):
    """How a step stands. ``begun``: its run is under way, or was when its suite was killed."""

    WAITING = "waiting"
    BEGUN = "begun"
    PASSED = "passed"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPED = "stopped"
    SKIPPED = "skipped"


GOOD = frozenset({StepState.PASSED, StepState.DEGRADED, StepState.SKIPPED})
OPEN = frozenset({StepState.WAITING, StepState.BEGUN, StepState.STOPPED})
_OF_STATUS: Mapping[str, StepState] = {
    Status.SUCCEEDED: StepState.PASSED,
    Status.DEGRADED: StepState.DEGRADED,
    Status.STOPPED: StepState.STOPPED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOutcome:
    """How one step stands. ``since``: when its run began or was continued, if that is not over, in
    seconds since the epoch; ``seconds``: how long it was under way before.
    """

    step: str
    optional: bool
    state: StepState = StepState.WAITING
    run_id: str = ""
    reason: str = ""
    exit_code: int | None = None
    since: float | None = None
    seconds: float | None = None

    def seconds_until(self, now: float) -> float | None:
        """How long its run was under way up to ``now``, which is no earlier than ``since``; None if
        it never was.
        """
        if self.since is None:
            return self.seconds
        return (self.seconds or 0.0) + max(0.0, now - self.since)


def fold_steps(suite: Suite, records: Iterable[StepRecord]) -> tuple[StepOutcome, ...]:
    """Every step, in the order in which they run."""
    found = {
        step.name: StepOutcome(step=step.name, optional=step.optional)
        for step in ordered_steps(suite.steps)
    }
    for record in records:
        if record.step in found:
            found[record.step] = after_record(found[record.step], record)
    return tuple(found.values())


def after_record(outcome: StepOutcome, record: StepRecord) -> StepOutcome:
    """How the step stands after one more record."""
    match record.kind:
        case StepRecordKind.STARTED:
            since = record.at if outcome.since is None else outcome.since
            return replace(
                outcome, state=StepState.BEGUN, run_id=record.run_id, since=since, reason=""
            )
        case StepRecordKind.CONTINUED:
            begun = replace(outcome, state=StepState.BEGUN, run_id=record.run_id, reason="")
            return replace(begun, since=record.at, seconds=record.seconds)
        case StepRecordKind.FINISHED:
            return replace(
                outcome,
                state=_OF_STATUS.get(record.status, StepState.FAILED),
                run_id=record.run_id,
                exit_code=record.exit_code,
                reason=record.reason,
                since=None,
                seconds=record.seconds or outcome.seconds_until(record.at),
            )
        case StepRecordKind.SKIPPED:
            return replace(outcome, state=StepState.SKIPPED, reason=record.reason)
        case StepRecordKind.REFUSED:
            return replace(outcome, state=StepState.FAILED, reason=record.reason)


def open_steps(outcomes: Iterable[StepOutcome]) -> tuple[StepOutcome, ...]:
    """Those that are not over, in the order in which they run."""
    return tuple(outcome for outcome in outcomes if outcome.state in OPEN)


class Pursuit(StrEnum):
    """How the run of an open step comes to its end."""

    RUN = "run"
    ATTACH = "attach"  # it is under way, though its suite was killed
    RESUME = "resume"
    STOP = "stop"
    NOTHING = "nothing"  # it is over


def pursue_step(
    *, exists: bool, alive: bool, ended: Status | None, again: bool, overdue: bool
) -> Pursuit:
    """What to do about a step's run. ``exists``: it has a folder; ``alive``: a process coordinates
    it; ``ended``: its status if it has a result; ``again``: one that was stopped is to continue;
    ``overdue``: its limit is spent.
    """
    if ended is not None and not (again and not overdue and ended is Status.STOPPED):
        return Pursuit.NOTHING
    if overdue:
        return Pursuit.STOP if exists else Pursuit.NOTHING
    if not exists:
        return Pursuit.RUN
    return Pursuit.ATTACH if alive else Pursuit.RESUME


def suite_status(outcomes: Iterable[StepOutcome]) -> Status:
    """Failed if a core step is; degraded if only an optional one is, or a step was."""
    outcomes = tuple(outcomes)
    core = {each.state for each in outcomes if not each.optional}
    if any(each.state in OPEN for each in outcomes):
        return Status.STOPPED
    if StepState.FAILED in core:
        return Status.FAILED
    whole = all(each.state in GOOD - {StepState.DEGRADED} for each in outcomes)
    return Status.SUCCEEDED if whole else Status.DEGRADED


def suite_exit_code(status: Status) -> ExitCode:
    """What the command ends with; a suite with open steps can be resumed."""
    codes = {Status.FAILED: ExitCode.RUN_FAILED, Status.STOPPED: ExitCode.BUSY}
    return codes.get(status, ExitCode.DONE)
