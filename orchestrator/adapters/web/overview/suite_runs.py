"""Runs of suites with what became of their steps, from their logs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.suite.suite_folder import (
    SuiteFolder,
    read_order,
    read_steps,
    read_suite_result,
    suite_folder,
    suite_run_ids,
)
from orchestrator.adapters.web.runs.run_view import TONES
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.suite.step_records import (
    StepOutcome,
    StepRecord,
    StepRecordKind,
    after_record,
)

SHOWN_RUNS = 30
OPEN = "not finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteStep:
    """A step that has begun or will not run; ``seconds`` None = it has not ended."""

    name: str
    state: str
    run_id: str
    seconds: float | None
    reason: str

    @property
    def tone(self) -> str:
        return "" if self.state == StepRecordKind.SKIPPED else TONES.get(self.state, "live")


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteListing:
    """A run of a suite; ``began`` in seconds since the epoch."""

    run_id: str
    suite: str
    cluster: str
    state: str
    began: float
    steps: tuple[SuiteStep, ...]

    @property
    def tone(self) -> str:
        return TONES.get(self.state, "live")


def list_suite_runs(layout: Layout) -> tuple[SuiteListing, ...]:
    """The latest runs of suites, newest first; one that cannot be read is left out."""
    return tuple(_read_all(layout, suite_run_ids(layout)[::-1][:SHOWN_RUNS]))


def _read_all(layout: Layout, run_ids: Iterable[str]) -> Iterator[SuiteListing]:
    for run_id in run_ids:
        try:
            yield _read(suite_folder(layout, run_id))
        except (OSError, OrchestrateError):
            continue


def _read(folder: SuiteFolder) -> SuiteListing:
    order, result = read_order(folder), read_suite_result(folder)
    return SuiteListing(
        run_id=folder.run_id,
        suite=order.suite,
        cluster=order.cluster,
        state=str(result.get("status", "")) if result is not None else OPEN,
        began=order.began,
        steps=latest_steps(read_steps(folder)),
    )


def latest_steps(records: Iterable[StepRecord]) -> tuple[SuiteStep, ...]:
    """How each step stands after its latest record, in the order in which they began."""
    latest: dict[str, StepRecord] = {}
    outcomes: dict[str, StepOutcome] = {}
    for record in records:
        latest[record.step] = record
        before = outcomes.get(record.step) or StepOutcome(step=record.step, optional=False)
        outcomes[record.step] = after_record(before, record)
    return tuple(
        SuiteStep(
            name=name,
            state=_state(record),
            run_id=record.run_id,
            seconds=outcomes[name].seconds,
            reason=record.reason,
        )
        for name, record in latest.items()
    )


def _state(record: StepRecord) -> str:
    match record.kind:
        case StepRecordKind.STARTED | StepRecordKind.CONTINUED:
            return "begun"
        case StepRecordKind.FINISHED:
            return record.status or "failed"
        case StepRecordKind.SKIPPED:
            return record.kind.value
        case StepRecordKind.REFUSED:
            return "failed"
