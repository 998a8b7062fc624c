"""What LoadGen is set to for a test, and what its settings must then say. Pure.

Limits, seeds and counts are those of MLPerf Inference v6.1 (mlperf.conf in LoadGen 6.0.17, and
inference_rules.adoc of the same round). LoadGen brings its own copy; both must agree.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.load import SAMPLES_PER_QUERY, LoadMode, LoadTerms, Scenario

OFFICIAL, SHORT = "official", "short"
SEEDS = {
    "qsl_rng_seed": 2085463073848966840,
    "sample_index_rng_seed": 2747215439041700203,
    "schedule_rng_seed": 16159082839903944936,
}
MIN_DURATION_MS = {OFFICIAL: 600_000, SHORT: 10_000}
# 64 queries are the fewest from which LoadGen certifies a 90th percentile; 662 a 99th.
SHORT_QUERIES, SHORT_PERCENTILE = 64, 0.9
DEFAULT_QUERIES, MULTI_STREAM_QUERIES = 100, 662
# More than the warm-up reached: an Offline test that ends before its time is invalid.
OFFLINE_MARGIN = 1.3
# Of what the workers can do: a queue at full load grows without end.
SERVER_SHARE = 0.5
DEFAULT_QPS = 1.0
SCENARIOS = {
    Scenario.OFFLINE: "Offline",
    Scenario.SERVER: "Server",
    Scenario.SINGLE_STREAM: "SingleStream",
    Scenario.MULTI_STREAM: "MultiStream",
}
MODES = {LoadMode.PERFORMANCE: "PerformanceOnly", LoadMode.ACCURACY: "AccuracyOnly"}


@dataclass(frozen=True, slots=True)
class Benchmark:
    """Samples that a test draws from, and the limits of the first token and of each after it."""

    samples: int
    ttft_ms: int
    tpot_ms: int


BENCHMARKS = {
    "llama3_1-8b": Benchmark(13368, 2000, 100),
    "llama3_1-8b-interactive": Benchmark(13368, 500, 30),
    "llama2-70b": Benchmark(24576, 2000, 200),
    "llama2-70b-interactive": Benchmark(24576, 450, 40),
    "llama3_1-405b": Benchmark(8313, 6000, 175),
    "llama3_1-405b-interactive": Benchmark(8313, 4500, 80),
    "mixtral-8x7b": Benchmark(15000, 2000, 200),
    "deepseek-r1": Benchmark(4388, 2000, 80),
    "deepseek-r1-interactive": Benchmark(4388, 1500, 15),
    "gpt-oss-120b": Benchmark(6396, 3000, 80),
    "gpt-oss-120b-interactive": Benchmark(6396, 2000, 15),
}
# Of these accuracy is asked of fewer samples.
ACCURACY_SAMPLES = {"gpt-oss-120b": 4395, "gpt-oss-120b-interactive": 4395}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadPlan:
    """``config``: LoadGen's configuration file; ``overrides`` are set after it was read, and
    ``expected`` is what the settings must say then.
    """

    scenario: str
    mode: str
    benchmark: str
    samples: int
    config: str
    overrides: Mapping[str, int | float]
    expected: Mapping[str, int | float]

    def command(self) -> dict[str, Any]:
        """What the process is told."""
        return {
            "type": "test",
            "scenario": self.scenario,
            "mode": self.mode,
            "benchmark": self.benchmark,
            "samples": self.samples,
            "config": self.config,
            "overrides": dict(self.overrides),
        }


def require_samples(terms: LoadTerms, total: int) -> None:
    """Raises :class:`UsageError` for rules that ask for more samples than there are."""
    benchmark = BENCHMARKS.get(terms.benchmark)
    if benchmark is None:
        raise UsageError(
            f"LoadGen has no limits for the benchmark {terms.benchmark!r}",
            id="workload.load",
            remedy=f"one of {', '.join(BENCHMARKS)}",
        )
    if terms.rules == OFFICIAL and total < benchmark.samples:
        raise UsageError(
            f"the official rules of {terms.benchmark} draw from {benchmark.samples} samples; "
            f"there are {total}",
            id="workload.load",
            remedy=f"--set samples={benchmark.samples} and a data set that has them, or "
            "--set rules=short",
        )


def plan_test(terms: LoadTerms, total: int, per_s: float) -> LoadPlan:
    """The test of ``total`` samples for workers that reach ``per_s`` samples/s together."""
    scenario = SCENARIOS[terms.scenario]
    rate = _rate(terms, per_s)
    overrides = dict(_overrides(terms))
    return LoadPlan(
        scenario=scenario,
        mode=MODES[terms.mode],
        benchmark=terms.benchmark,
        samples=total,
        config=f"*.{scenario}.target_qps = {rate!r}\n" if rate else "",
        overrides=overrides,
        expected={**_rules(terms), **_rate_setting(terms, rate), **overrides},
    )


def describe_test(terms: LoadTerms, total: int) -> tuple[str, ...]:
    """For a plan: what LoadGen will do with ``total`` samples, and how long at least."""
    test = plan_test(terms, total, 0.0)
    return (
        "one process beside the coordinator; the nodes do not need it",
        f"scenario {test.scenario}, mode {test.mode}, {terms.rules} rules of {test.benchmark}",
        _duration_text(terms, test),
    )


def _duration_text(terms: LoadTerms, test: LoadPlan) -> str:
    if terms.mode is LoadMode.ACCURACY:
        return f"the test takes as long as {test.samples} samples need, each asked for once"
    least_s = test.expected["min_duration_ms"] / 1000
    return f"the test takes at least {least_s:g} s, once the models are loaded and warmed up"


def mismatches(plan: LoadPlan, read: Mapping[str, object]) -> list[str]:
    """Each setting that is not what the rules say, as text."""
    return [
        f"{name} is {read.get(name)}, not {wanted}"
        for name, wanted in plan.expected.items()
        if not _equal(read.get(name), wanted)
    ]


def _equal(read: object, wanted: float) -> bool:
    """LoadGen keeps rates and percentiles as floating-point numbers, all else exactly."""
    if isinstance(wanted, int):
        return read == wanted
    return isinstance(read, (int, float)) and math.isclose(read, wanted, rel_tol=1e-12)


def _rate(terms: LoadTerms, per_s: float) -> float:
    """Samples per second that are expected (Offline) or asked for (Server); 0 elsewhere."""
    if terms.scenario not in (Scenario.OFFLINE, Scenario.SERVER):
        return 0.0
    share = OFFLINE_MARGIN if terms.scenario is Scenario.OFFLINE else SERVER_SHARE
    return terms.target_qps or round(share * per_s, 3) or DEFAULT_QPS


def _rate_setting(terms: LoadTerms, rate: float) -> dict[str, float]:
    names = {Scenario.OFFLINE: "offline_expected_qps", Scenario.SERVER: "server_target_qps"}
    return {names[terms.scenario]: rate} if rate else {}


def _overrides(terms: LoadTerms) -> Iterator[tuple[str, int | float]]:
    """Where the test departs from what LoadGen's own file says of the benchmark."""
    if terms.rules == SHORT:
        yield "performance_sample_count_override", 0  # all samples that there are
        yield "accuracy_sample_count_override", 0
        yield "min_query_count", SHORT_QUERIES
        yield "server_target_latency_percentile", SHORT_PERCENTILE
        yield "multi_stream_target_latency_percentile", SHORT_PERCENTILE
        least_ms = round(1000 * terms.min_duration_s) or MIN_DURATION_MS[SHORT]
        yield "min_duration_ms", least_ms
    elif terms.scenario is Scenario.OFFLINE:
        # The file lacks it for some benchmarks; the rules have it for all.
        yield "min_query_count", BENCHMARKS[terms.benchmark].samples


def _rules(terms: LoadTerms) -> dict[str, int | float]:
    """What v6.1 asks of every large language model, whatever the scenario, and of this one."""
    benchmark = BENCHMARKS[terms.benchmark]
    rules: dict[str, int | float] = {
        **SEEDS,
        "use_token_latencies": True,
        "sample_concatenate_permutation": True,
        "performance_issue_unique": False,
        "performance_issue_same": False,
        "performance_sample_count_override": benchmark.samples,
        "accuracy_sample_count_override": ACCURACY_SAMPLES.get(terms.benchmark, 0),
        "max_duration_ms": 0,
        "max_query_count": 0,
        "min_duration_ms": MIN_DURATION_MS[OFFICIAL],
        "min_query_count": DEFAULT_QUERIES,
        "single_stream_target_latency_percentile": 0.9,
        "multi_stream_target_latency_percentile": 0.99,
        "multi_stream_samples_per_query": SAMPLES_PER_QUERY,
        "server_target_latency_percentile": 0.99,
        "server_coalesce_queries": False,
    }
    if terms.scenario is Scenario.MULTI_STREAM:
        rules["min_query_count"] = MULTI_STREAM_QUERIES
    if terms.scenario is Scenario.SERVER:
        rules["server_target_latency_ns"] = 0
        rules["ttft_latency"] = benchmark.ttft_ms * 1_000_000
        rules["tpot_latency"] = benchmark.tpot_ms * 1_000_000
    return rules
