"""The dashboards that are exported: overview, run, nodes, inference, experts."""

from __future__ import annotations

from orchestrator.adapters.monitoring.dashboard_model import (
    Dashboard,
    DashboardVariable,
    Panel,
    PanelQuery,
)

_RUNS = 'run=~"$run"'
_NODES = 'run=~"$run", node=~"$node"'
_RUN = DashboardVariable("run", "orchestrate_run_info", "run")
_NODE = DashboardVariable("node", "orchestrate_node_up", "node")


def _by_run(title: str, metric: str, unit: str = "none") -> Panel:
    return Panel(title, (PanelQuery(f"{metric}{{{_RUNS}}}", "{{run}}"),), unit)


def _by_node(title: str, metric: str, unit: str = "none") -> Panel:
    return Panel(title, (PanelQuery(f"{metric}{{{_NODES}}}", "{{node}}"),), unit)


def _by_layer(title: str, metric: str, meaning: str) -> Panel:
    return Panel(title, (PanelQuery(f"{metric}{{{_RUNS}}}", "layer {{layer}}"),), help=meaning)


OVERVIEW = Dashboard(
    "orchestrate-overview",
    "orchestrate: overview",
    (
        Panel(
            "Alerts", (PanelQuery('ALERTS{alertname=~"Orchestrate.*"}'),), kind="table", width=24
        ),
        Panel("Runs", (PanelQuery("orchestrate_runs", "{{state}}"),), kind="stat"),
        Panel(
            "Runs under way",
            (PanelQuery('orchestrate_run_state{state=~"running|unattended|elsewhere"} == 1'),),
            kind="table",
        ),
        Panel(
            "Progress", (PanelQuery("orchestrate_run_progress_ratio", "{{run}}"),), "percentunit"
        ),
        Panel("Tokens per second", (PanelQuery("orchestrate_run_tokens_per_second", "{{run}}"),)),
        Panel(
            "Last night of each schedule",
            (PanelQuery("orchestrate_nightly_state == 1"),),
            kind="table",
        ),
        Panel(
            "Since a night finished well",
            (
                PanelQuery(
                    "time() - orchestrate_nightly_finished_timestamp_seconds", "{{schedule}}"
                ),
            ),
            "s",
            kind="stat",
        ),
        Panel(
            "Last runs by the median of runs like them",
            (
                PanelQuery(
                    "orchestrate_last_run_trend_ratio < 1", "{{workload}} {{cluster}} {{figure}}"
                ),
            ),
            "percentunit",
            help="Below 1 is worse. Figures without a direction have no trend.",
        ),
        Panel(
            "Free where runs are kept",
            (
                PanelQuery(
                    "orchestrate_home_free_bytes / orchestrate_home_size_bytes", "{{instance}}"
                ),
            ),
            "percentunit",
        ),
    ),
)

RUN = Dashboard(
    "orchestrate-run",
    "orchestrate: run",
    (
        Panel("Run", (PanelQuery(f"orchestrate_run_info{{{_RUNS}}}"),), kind="table", width=24),
        _by_run("Progress", "orchestrate_run_progress_ratio", "percentunit"),
        Panel("Ranks", (PanelQuery(f"orchestrate_run_ranks{{{_RUNS}}}", "{{run}} {{state}}"),)),
        _by_run("Tokens per second", "orchestrate_run_tokens_per_second"),
        _by_run("Step", "orchestrate_run_step_seconds", "s"),
        Panel(
            "Figures", (PanelQuery(f"orchestrate_run_figure{{{_RUNS}}}", "{{figure}} {{unit}}"),)
        ),
        Panel("Nodes", (PanelQuery(f"orchestrate_run_nodes{{{_RUNS}}}", "{{run}} {{state}}"),)),
        Panel(
            "Power of GPUs",
            (
                PanelQuery(
                    f"rate(orchestrate_run_gpu_energy_joules_total{{{_RUNS}}}[5m])", "{{run}}"
                ),
            ),
            "watt",
            help="From NVML's energy counter, as ranks report it: at most a minute late.",
        ),
        Panel(
            "Retries, fallbacks, broken links, stalls",
            (
                PanelQuery(f"orchestrate_run_retries_total{{{_RUNS}}}", "{{run}} retries"),
                PanelQuery(f"orchestrate_run_fallbacks_total{{{_RUNS}}}", "{{run}} fallbacks"),
                PanelQuery(f"orchestrate_run_links_broken{{{_RUNS}}}", "{{run}} links"),
                PanelQuery(f"orchestrate_run_stalled{{{_RUNS}}}", "{{run}} stalled"),
            ),
        ),
        Panel(
            "Divided work",
            (
                PanelQuery(
                    f"rate(orchestrate_run_samples_total{{{_RUNS}}}[1m])", "{{outcome}} per s"
                ),
                PanelQuery(f"orchestrate_run_samples_queued{{{_RUNS}}}", "queued"),
                PanelQuery(f"orchestrate_run_samples_leased{{{_RUNS}}}", "leased"),
            ),
        ),
        Panel(
            "Since a rank reported progress",
            (
                PanelQuery(
                    f"time() - orchestrate_run_progress_timestamp_seconds{{{_RUNS}}}"
                    ' and on (run) (orchestrate_run_state{state="running"} == 1)',
                    "{{run}}",
                ),
            ),
            "s",
        ),
        Panel(
            "Fabric",
            (
                PanelQuery(
                    f"orchestrate_run_fabric_bus_bandwidth_bytes_per_second{{{_RUNS}}}",
                    "{{run}} probed",
                ),
                PanelQuery(
                    f"orchestrate_run_fabric_floor_bytes_per_second{{{_RUNS}}}", "{{run}} floor"
                ),
            ),
            "Bps",
        ),
        _by_run("NVLink payload", "orchestrate_run_nvlink_payload_bytes_total", "bytes"),
        Panel(
            "Rounds over SSH",
            (
                PanelQuery(f"orchestrate_run_rounds_total{{{_RUNS}}}", "{{run}} rounds"),
                PanelQuery(
                    f"rate(orchestrate_run_round_bytes_total{{{_RUNS}}}[5m])", "{{run}} B/s"
                ),
            ),
        ),
    ),
    (_RUN,),
)

NODES = Dashboard(
    "orchestrate-nodes",
    "orchestrate: nodes",
    (
        _by_node("Well", "orchestrate_node_up"),
        _by_node("Ranks", "orchestrate_node_ranks"),
        _by_node("Tokens per second", "orchestrate_node_tokens_per_second"),
        Panel(
            "Power of GPUs by the energy counter",
            (
                PanelQuery(
                    f"rate(orchestrate_node_gpu_energy_joules_total{{{_NODES}}}[5m])", "{{node}}"
                ),
            ),
            "watt",
        ),
        _by_node("Power", "orchestrate_node_gpu_power_watts", "watt"),
        _by_node("Hottest GPU", "orchestrate_node_gpu_temperature_celsius", "celsius"),
        Panel(
            "GPU memory in use",
            (
                PanelQuery(
                    f"orchestrate_node_gpu_memory_used_bytes{{{_NODES}}}"
                    f" / orchestrate_node_gpu_memory_bytes{{{_NODES}}}",
                    "{{node}}",
                ),
            ),
            "percentunit",
        ),
        Panel(
            "GPUs held down",
            (PanelQuery(f"orchestrate_node_gpus_throttled{{{_NODES}}}", "{{node}} {{reason}}"),),
        ),
        Panel(
            "Errors of GPUs",
            (
                PanelQuery(
                    f"orchestrate_node_gpu_ecc_uncorrected_errors{{{_NODES}}}", "{{node}} ECC"
                ),
                PanelQuery(f"orchestrate_node_gpu_xid_errors{{{_NODES}}}", "{{node}} Xid"),
                PanelQuery(f"orchestrate_node_gpus_lost{{{_NODES}}}", "{{node}} lost"),
            ),
        ),
        Panel(
            "NVLink payload",
            (
                PanelQuery(
                    f"rate(orchestrate_node_nvlink_payload_bytes_total{{{_NODES}}}[1m])",
                    "{{node}} {{direction}}",
                ),
            ),
            "Bps",
        ),
        _by_node("Free disk", "orchestrate_node_disk_free_bytes", "bytes"),
        _by_node("Clock beside the coordinator's", "orchestrate_node_clock_offset_seconds", "s"),
        _by_node("GPUs", "orchestrate_node_gpus"),
    ),
    (_RUN, _NODE),
)


def _quantiles(title: str, metric: str) -> Panel:
    rate = f"rate({metric}_bucket{{{_RUNS}}}[5m])"
    return Panel(
        title,
        tuple(
            PanelQuery(
                f"histogram_quantile({q}, sum by (le, run) ({rate}))", f"{{{{run}}}} p{100 * q:g}"
            )
            for q in (0.5, 0.95, 0.99)
        ),
        "s",
    )


INFERENCE = Dashboard(
    "orchestrate-inference",
    "orchestrate: inference",
    (
        _quantiles("Latency of requests", "orchestrate_request_latency_seconds"),
        _quantiles("Time to first token", "orchestrate_request_first_token_seconds"),
        _quantiles("Time per output token", "orchestrate_request_output_token_seconds"),
        Panel(
            "Failed requests",
            (PanelQuery(f"rate(orchestrate_requests_failed_total{{{_RUNS}}}[5m])", "{{run}}"),),
        ),
        _by_run("Tokens per second", "orchestrate_run_tokens_per_second"),
        Panel(
            "Requests in engines",
            (
                PanelQuery(f"orchestrate_engine_requests_running{{{_RUNS}}}", "{{node}} running"),
                PanelQuery(f"orchestrate_engine_requests_waiting{{{_RUNS}}}", "{{node}} waiting"),
            ),
        ),
        Panel(
            "KV cache in use",
            (PanelQuery(f"orchestrate_engine_cache_usage_ratio{{{_RUNS}}}", "{{node}}"),),
            "percentunit",
        ),
        Panel(
            "Scaling: what waits",
            (
                PanelQuery("orchestrate_scaling_queue_depth", "{{workload}} requests"),
                PanelQuery("orchestrate_scaling_token_backlog", "{{workload}} tokens"),
            ),
        ),
        Panel(
            "Scaling: p95 and saturation",
            (
                PanelQuery("orchestrate_scaling_latency_p95_seconds", "{{workload}} p95 in s"),
                PanelQuery("orchestrate_scaling_saturation_ratio", "{{workload}} saturation"),
            ),
        ),
    ),
    (_RUN,),
)

EXPERTS = Dashboard(
    "orchestrate-experts",
    "orchestrate: experts",
    (
        _by_layer(
            "Busiest expert by the mean",
            "orchestrate_moe_load_max_to_mean_ratio",
            "What a step waits for where experts are sharded: at 2 the others idle half the time.",
        ),
        _by_layer("Gini", "orchestrate_moe_load_gini_ratio", "0 = all alike, near 1 = one expert."),
        _by_layer("Variation", "orchestrate_moe_load_variation_ratio", "Deviation by the mean."),
        _by_layer("Dead experts", "orchestrate_moe_dead_experts_ratio", "Got no token."),
        _by_layer(
            "Effective experts",
            "orchestrate_moe_effective_experts_ratio",
            "exp(entropy) by the number of experts.",
        ),
        _by_run("Tokens per second", "orchestrate_run_tokens_per_second"),
    ),
    (_RUN,),
)

DASHBOARDS = (OVERVIEW, RUN, NODES, INFERENCE, EXPERTS)
