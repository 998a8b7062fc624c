"""What a wake-up of a schedule does: begin the night that is due, or look for what is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

from orchestrator.adapters.nightly.due_times import past_nights
from orchestrator.adapters.nightly.schedule_store import (
    NightlyFolder,
    append_record,
    read_nights,
    read_records,
    working_on,
)
from orchestrator.adapters.nightly.wake_program import wake_environment
from orchestrator.adapters.run_process import run_process, stop_signals
from orchestrator.adapters.store.background_command import own_command
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.store.run_list import read_result
from orchestrator.adapters.suite.suite_folder import (
    read_suite_result,
    suite_folder,
    suite_run_ids,
)
from orchestrator.cli.nights.status_file import StatusFile
from orchestrator.cli.run_words import UNWATCHED, job_words, node_words
from orchestrator.core.base.errors import UsageError
from orchestrator.core.nightly.nights import (
    Night,
    NightRecord,
    RecordKind,
    WakeAction,
    WakeDecision,
    alarm_name,
    decide_wake,
    fold_nights,
    nights_to_alarm,
)
from orchestrator.core.nightly.schedule import Schedule
from orchestrator.parsing.inputs.nights.schedule_file import parse_env_file

MOST_NIGHTS = 2  # of one wake-up: the one that is due, and one that queued behind it

Say = Callable[[str], None]


def _measure_once(_night: str, _last: bool) -> bool:
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class NightShift:
    """A schedule at work. ``after_run``: called with the night when a run of it is over, and
    whether that was its last; it returns whether to measure once more. ``page``: kept fresh while
    a run is under way.
    """

    layout: Layout
    folder: NightlyFolder
    schedule: Schedule
    say: Say
    page: StatusFile
    after_run: Callable[[str, bool], bool] = _measure_once

    def tick(self) -> int:
        """Begin what is due, and what queued behind it; the exit code of the last run, else 0."""
        code = 0
        for _ in range(MOST_NIGHTS):
            with working_on(self.folder) as alone:
                decision = self._decide(busy=not alone)
                if decision.action is not WakeAction.START:
                    self._note(decision)
                    return code
                self.say(f"{self.schedule.name}: night {decision.night} begins")
                code = self.run_night(decision.night, reason=decision.reason)
        return code

    def run_night(self, night: str, *, reason: str = "") -> int:
        """Run ``night``, and once more if a figure is suspicious; the exit code.

        The caller works on the schedule alone.
        """
        code = self._run_once(night, reason)
        if self.after_run(night, False):
            self.say(f"{self.schedule.name}: a figure is suspicious; measuring once more")
            self._run_once(night, "measured again: a figure was suspicious")
            self.after_run(night, True)
        return code

    def today(self) -> str:
        """The local date of the schedule's zone."""
        zone = ZoneInfo(self.schedule.zone)
        return datetime.fromtimestamp(time.time(), UTC).astimezone(zone).date().isoformat()

    def _decide(self, *, busy: bool) -> WakeDecision:
        now = time.time()
        due = past_nights(self.schedule, now)
        nights = fold_nights(due, read_records(self.folder), now=now, busy=busy)
        return decide_wake(self.schedule, due, nights, now=now, busy=busy)

    def _note(self, decision: WakeDecision) -> None:
        kinds = {WakeAction.SKIP: RecordKind.SKIPPED, WakeAction.QUEUE: RecordKind.QUEUED}
        if decision.action in kinds:
            self._record(kinds[decision.action], decision.night, reason=decision.reason)
            self.say(f"{self.schedule.name}: night {decision.night}: {decision.reason}")

    def _run_once(self, night: str, reason: str) -> int:
        """From the moment that the night counts as begun a signal is no reason to leave it so."""
        with stop_signals() as signals:
            return self._run_until(night, reason, signals)

    def _run_until(self, night: str, reason: str, signals: Sequence[int]) -> int:
        run_id = self._free_run_id(night)
        self._record(RecordKind.STARTED, night, run_id=run_id, reason=reason)
        try:
            outcome = run_process(
                own_command(run_arguments(self.schedule, run_id)),
                environment=self._environment(),
                folder=self.schedule.folder,
                output=self.folder.output(night),
                limit_s=self.schedule.limit_s,
                meanwhile=self.page.refresh,
                signals=signals,
            )
        except (OSError, UsageError) as error:
            self._record_end(night, run_id, 2, f"the run could not be started: {error}")
            self.say(f"{self.schedule.name}: {error}")
            return 2
        self._record_end(night, run_id, outcome.exit_code, outcome.ended_by)
        return outcome.exit_code

    def _environment(self) -> Mapping[str, str]:
        schedule = self.schedule
        own = wake_environment(self.layout, os.environ, schedule.environment)
        if not schedule.env_file:
            return own
        path = Path(schedule.env_file)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            remedy = f"orchestrate nightly add {schedule.name} with another --env-file"
            what = f"the variables could not be read: {type(error).__name__}"
            raise UsageError(what, id="nightly.env", where=path, remedy=remedy) from error
        return {**own, **parse_env_file(text, str(path))}

    def _free_run_id(self, night: str) -> str:
        base = f"nightly-{self.schedule.name}-{night.replace('-', '')}"
        taken = {*self.layout.run_ids(), *suite_run_ids(self.layout)}
        taken |= {each.run_id for each in read_records(self.folder)}
        names = (base, *(f"{base}-{number}" for number in range(2, 1000)))
        return next(name for name in names if name not in taken)

    def _record_end(self, night: str, run_id: str, exit_code: int, reason: str) -> None:
        status, cause = self._end_of(run_id)
        if not status:
            cause = f"no result; exit {exit_code}: see {self.folder.output(night)}"
        self._record(
            RecordKind.FINISHED,
            night,
            run_id=run_id,
            status=status or "failed",
            exit_code=exit_code,
            reason=reason or cause,
        )

    def _end_of(self, run_id: str) -> tuple[str, str]:
        """The status of the night's run or suite, and why it failed; no status without a result."""
        if self.schedule.suite:
            told = read_suite_result(suite_folder(self.layout, run_id)) or {}
            return str(told.get("status", "")), str((told.get("failure") or {}).get("cause", ""))
        result = read_result(self.layout.run(run_id))
        if result is None:
            return "", ""
        return result.status.value, result.failure.cause[:300] if result.failure else ""

    def _record(
        self,
        kind: RecordKind,
        night: str,
        *,
        run_id: str = "",
        status: str = "",
        exit_code: int | None = None,
        reason: str = "",
    ) -> None:
        record = NightRecord(
            kind=kind,
            night=night,
            at=time.time(),
            run_id=run_id,
            status=status,
            exit_code=exit_code,
            reason=reason,
        )
        append_record(self.folder, record)


def run_arguments(schedule: Schedule, run_id: str) -> list[str]:
    """The command line of a night's run."""
    where = ["--cluster", schedule.cluster, "--run-id", run_id]
    if schedule.suite:
        selected = node_words(schedule.nodes)
        return ["suite", "run", schedule.suite, *where, *selected, "--color", "never"]
    what = job_words(schedule.workload, schedule.nodes, schedule.settings)
    return ["run", *where, *what, *UNWATCHED]


def watch_nights(folder: NightlyFolder, schedule: Schedule, alarm: Callable[[Night], None]) -> int:
    """Alarm once for every night that is missing, half-done, late, skipped or failed; how many."""
    nights = read_nights(folder, schedule, now=time.time())
    found = nights_to_alarm(nights, schedule.since)
    for night in found:
        # First the record: two watchers at once must not alarm twice for long.
        record = NightRecord(
            kind=RecordKind.ALARMED, night=night.night, at=time.time(), reason=alarm_name(night)
        )
        append_record(folder, record)
        alarm(night)
    return len(found)
