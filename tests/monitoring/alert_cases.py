"""For each alert: the series that fire it from the third scrape on, and series beside them that do
not.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SCRAPE_S = 15
FIRST_BAD = 2  # the scrape that sees it first
RUN = {"run": "r1", "instance": "a"}
NODE = {**RUN, "node": "n1"}
PAIR = {"instance": "a", "cluster": "c", "workload": "w"}


@dataclass(frozen=True, kw_only=True)
class Case:
    """``bad`` and ``good``: values of the series before and from ``FIRST_BAD`` on. ``labels`` of
    the alert; ``after_s``: its patience. ``beside``: (series, values) that never change.
    """

    metric: str
    labels: dict[str, str]
    good: float = 0
    bad: float = 1
    severity: str = "critical"
    after_s: int = 0
    more: dict[str, str] = field(default_factory=dict)
    beside: tuple[tuple[str, float], ...] = ()


def series(metric: str, labels: dict[str, str]) -> str:
    """As promtool reads it."""
    inside = ",".join(f'{name}="{value}"' for name, value in labels.items())
    return f"{metric}{{{inside}}}"


CASES = {
    "OrchestrateDown": Case(
        metric="up", labels={"job": "orchestrate", "instance": "a"}, good=1, bad=0, after_s=60
    ),
    "OrchestrateRankFailed": Case(
        metric="orchestrate_run_ranks",
        labels=RUN,
        more={"state": "failed"},
        beside=((series("orchestrate_run_ranks", {"run": "r2", "state": "stopped"}), 7),),
    ),
    "OrchestrateNodeLost": Case(
        metric="orchestrate_node_up",
        labels=NODE,
        good=1,
        bad=0,
        beside=((series("orchestrate_node_up", {"run": "r1", "node": "n2"}), 1),),
    ),
    "OrchestrateLinkBroken": Case(metric="orchestrate_run_links_broken", labels=RUN, bad=2),
    "OrchestrateFallbackInUse": Case(
        metric="orchestrate_run_fallbacks_total", labels=RUN, severity="warning"
    ),
    "OrchestrateRunStalled": Case(metric="orchestrate_run_stalled", labels=RUN, severity="warning"),
    "OrchestrateRunUnattended": Case(
        metric="orchestrate_run_state",
        labels={**RUN, "state": "unattended"},
        severity="warning",
        after_s=120,
        beside=((series("orchestrate_run_state", {"run": "r1", "state": "running"}), 1),),
    ),
    "OrchestrateThroughputBelowTrend": Case(
        metric="orchestrate_last_run_trend_ratio",
        labels={**PAIR, "figure": "tokens_per_s"},
        good=0.97,
        bad=0.94,
        severity="warning",
        beside=(
            (series("orchestrate_last_run_finished_timestamp_seconds", PAIR), 0),
            (series("orchestrate_last_run_trend_ratio", {**PAIR, "figure": "train_loss"}), 0.5),
        ),
    ),
    "OrchestrateNightlyMissing": Case(
        metric="orchestrate_nightly_state",
        labels={"schedule": "s", "state": "missing"},
        beside=((series("orchestrate_nightly_state", {"schedule": "t", "state": "done"}), 1),),
    ),
    "OrchestrateNightlyFailed": Case(
        metric="orchestrate_nightly_state", labels={"schedule": "s", "state": "failed"}
    ),
    "OrchestrateNightlyRegression": Case(
        metric="orchestrate_nightly_figures",
        labels={"schedule": "s", "state": "regression"},
        severity="warning",
        beside=((series("orchestrate_nightly_figures", {"state": "improvement"}), 3),),
    ),
    "OrchestrateNightlyOld": Case(
        metric="orchestrate_nightly_finished_timestamp_seconds",
        labels={"schedule": "s"},
        good=0,
        bad=-180_000,
        severity="warning",
    ),
    "OrchestrateGpuMemoryErrors": Case(
        metric="orchestrate_node_gpu_ecc_uncorrected_errors", labels=NODE
    ),
    "OrchestrateGpuXid": Case(
        metric="orchestrate_node_gpu_xid_errors", labels=NODE, severity="warning"
    ),
    "OrchestrateGpuUnreachable": Case(metric="orchestrate_node_gpus_lost", labels=NODE),
    "OrchestrateGpuThrottled": Case(
        metric="orchestrate_node_gpus_throttled",
        labels={**NODE, "reason": "thermal"},
        severity="warning",
        beside=((series("orchestrate_node_gpus_throttled", {**NODE, "reason": "power"}), 0),),
    ),
    "OrchestrateDiskFull": Case(
        metric="orchestrate_node_disk_free_bytes",
        labels=NODE,
        good=50e9,
        bad=5e9,
        severity="warning",
    ),
    "OrchestrateHomeFull": Case(
        metric="orchestrate_home_free_bytes",
        labels={"instance": "a"},
        good=50,
        bad=4,
        beside=((series("orchestrate_home_size_bytes", {"instance": "a"}), 100),),
    ),
    "OrchestrateSourcesUnreadable": Case(
        metric="orchestrate_unreadable_sources",
        labels={"instance": "a"},
        severity="warning",
        after_s=300,
    ),
    "OrchestrateEnginesSaturated": Case(
        metric="orchestrate_scaling_saturation_ratio",
        labels=PAIR,
        good=0.5,
        bad=0.99,
        severity="warning",
        after_s=300,
        beside=((series("orchestrate_scaling_queue_depth", PAIR), 4),),
    ),
    "OrchestrateExpertImbalance": Case(
        metric="orchestrate_moe_load_max_to_mean_ratio",
        labels={**RUN, "layer": "3"},
        good=1.2,
        bad=2.5,
        severity="warning",
        after_s=300,
        beside=((series("orchestrate_moe_load_max_to_mean_ratio", {**RUN, "layer": "4"}), 1.1),),
    ),
    "OrchestrateExpertsDead": Case(
        metric="orchestrate_moe_dead_experts_ratio",
        labels={**RUN, "layer": "3"},
        bad=0.25,
        severity="warning",
        after_s=300,
    ),
}
