"""What is kept in a home: space, history, schedules."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

from orchestrator.adapters.history.open_store import open_history
from orchestrator.adapters.history.store import HistoryStore
from orchestrator.adapters.nightly.due_times import next_nights
from orchestrator.adapters.nightly.schedule_store import (
    NightlyFolder,
    find_schedule,
    read_nights,
    schedule_names,
)
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.history.run_record import RunQuery, RunRecord
from orchestrator.core.monitoring import kept_metrics as kept
from orchestrator.core.monitoring.catalogue import MAX_PAIRS
from orchestrator.core.monitoring.history_samples import last_run_samples, trend_samples
from orchestrator.core.monitoring.metric import Sample
from orchestrator.core.monitoring.night_samples import schedule_samples
from orchestrator.core.nightly.nights import first_to_come
from orchestrator.core.verdict.result import Status

TREND_RUNS = 30


def space_samples(layout: Layout) -> Iterator[Sample]:
    """The file system of the home; nothing where none exists yet."""
    try:
        usage = shutil.disk_usage(layout.home)
    except OSError:
        return
    yield kept.HOME_FREE.sample(usage.free)
    yield kept.HOME_SIZE.sample(usage.total)


class HistorySamples:
    """The last run of each workload and cluster. Trends are worked out once for each run."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._trends: dict[str, list[Sample]] = {}

    def read(self) -> tuple[dict[Status, int], list[Sample]]:
        """(finished runs by status, samples). Raises ``OrchestrateError``."""
        history = open_history(self._layout)
        latest = history.latest_runs(MAX_PAIRS)
        self._trends = {run.run_id: self._trend(history, run) for run in latest}
        samples = [sample for run in latest for sample in last_run_samples(run)]
        samples += [sample for trend in self._trends.values() for sample in trend]
        return history.count_statuses(), samples

    def _trend(self, history: HistoryStore, run: RunRecord) -> list[Sample]:
        known = self._trends.get(run.run_id)
        if known is not None:
            return known
        like = RunQuery(key_digest=run.key.digest, before=run.finished, limit=TREND_RUNS)
        return list(trend_samples(run, history.read_runs(like)))


class ScheduleSamples:
    """Every schedule; one that cannot be read keeps no other one back."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.unreadable = 0

    def read(self, now: float) -> Iterator[Sample]:
        """How schedules stand at ``now``."""
        self.unreadable = 0
        for name in schedule_names(self._layout):
            try:
                yield from self._schedule(name, now)
            except (OSError, OrchestrateError):
                self.unreadable += 1

    def _schedule(self, name: str, now: float) -> list[Sample]:
        folder, schedule = find_schedule(self._layout, name)
        nights = [
            night
            for night in read_nights(folder, schedule, now=now)
            if night.due is None or night.due >= schedule.since
        ]
        following = first_to_come(next_nights(schedule, now, 2), nights)
        found = schedule_samples(
            name, nights, next_due=following.due, figures=_figure_states(folder)
        )
        return list(found)


def _figure_states(folder: NightlyFolder) -> list[str]:
    """What the latest night that was judged said of its figures."""
    try:
        findings = json.loads(folder.findings.read_bytes())["findings"]
        return [str(each["state"]) for each in findings]
    except (OSError, ValueError, KeyError, TypeError):
        return []
