"""Metrics of what is kept: the last run of each workload and cluster, schedules, this home."""

from __future__ import annotations

from orchestrator.core.monitoring.metric import MetricFamily
from orchestrator.core.nightly.nights import NightState

PAIR = ("cluster", "workload")
SCHEDULE = ("schedule",)

LAST_SUCCEEDED = MetricFamily(
    name="orchestrate_last_run_succeeded",
    labels=PAIR,
    help="Whether the last run succeeded, also degraded.",
)
LAST_DEGRADED = MetricFamily(
    name="orchestrate_last_run_degraded",
    labels=PAIR,
    help="Whether the last run used a fallback or lost a node.",
)
LAST_DURATION = MetricFamily(
    name="orchestrate_last_run_duration_seconds", labels=PAIR, help="How long the last run took."
)
LAST_FINISHED = MetricFamily(
    name="orchestrate_last_run_finished_timestamp_seconds",
    labels=PAIR,
    help="When the last run ended.",
)
LAST_FIGURE = MetricFamily(
    name="orchestrate_last_run_figure",
    labels=(*PAIR, "figure", "unit"),
    help="A figure that the last run reported, in its own unit.",
)
LAST_TREND = MetricFamily(
    name="orchestrate_last_run_trend_ratio",
    labels=(*PAIR, "figure"),
    help="A figure of the last run by the median of earlier runs like it; below 1 is worse.",
)

NIGHT_STATE = MetricFamily(
    name="orchestrate_nightly_state",
    labels=(*SCHEDULE, "state"),
    states=tuple(state.value for state in NightState),
    help="1 for the state of the latest night that was due, 0 for the others.",
)
NIGHT_LAST = MetricFamily(
    name="orchestrate_nightly_finished_timestamp_seconds",
    labels=SCHEDULE,
    help="When a night of the schedule last finished well, also degraded.",
)
NIGHT_NEXT = MetricFamily(
    name="orchestrate_nightly_next_timestamp_seconds",
    labels=SCHEDULE,
    help="When the next night is due.",
)
NIGHT_FIGURES = MetricFamily(
    name="orchestrate_nightly_figures",
    labels=(*SCHEDULE, "state"),
    help="Figures of the latest night by what detection says of them.",
)

BUILD = MetricFamily(
    name="orchestrate_build_info", labels=("version",), help="The version that answers: 1."
)
UNREADABLE = MetricFamily(
    name="orchestrate_unreadable_sources",
    help="Runs, schedules and histories that could not be read for this answer.",
)
COLLECT_SECONDS = MetricFamily(
    name="orchestrate_collect_seconds", help="Time that it took to collect this answer."
)
HOME_FREE = MetricFamily(
    name="orchestrate_home_free_bytes", help="Free space where runs and history are kept."
)
HOME_SIZE = MetricFamily(
    name="orchestrate_home_size_bytes", help="Size of the file system where they are kept."
)

KEPT_METRICS = (
    LAST_SUCCEEDED,
    LAST_DEGRADED,
    LAST_DURATION,
    LAST_FINISHED,
    LAST_FIGURE,
    LAST_TREND,
    NIGHT_STATE,
    NIGHT_LAST,
    NIGHT_NEXT,
    NIGHT_FIGURES,
    BUILD,
    UNREADABLE,
    COLLECT_SECONDS,
    HOME_FREE,
    HOME_SIZE,
)
