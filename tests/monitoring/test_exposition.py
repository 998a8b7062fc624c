"""Answers to a scrape: read back by Prometheus' own parsers, with hostile labels among them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.adapters.monitoring.exposition import render_samples
from orchestrator.core.monitoring.catalogue import METRICS
from orchestrator.core.monitoring.metric import MAX_LABEL, MetricKind, Sample
from orchestrator.core.monitoring.request_latencies import RequestLatencies, RequestTimes
from orchestrator.core.monitoring.run_metrics import RUN_FIGURE, RUN_RETRIES
from orchestrator.core.monitoring.serving_metrics import REQUEST_LATENCY

HOSTILE = (
    '"} 1\norchestrate_runs{state="',
    "<script>alert(1)</script>",
    "\x1b[2J\x1b]0;title\x07",
    "\\n\\\\",
    "x" * (10 << 20),
    "\ud800 lone surrogate",
    "\u202e right to left",
    "",
)


def parsed(samples: list[Sample]) -> dict[str, list[tuple[dict[str, str], float]]]:
    text = render_samples(samples).content.decode()
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families)
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in families:
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


def test_hostile_labels_are_values_and_nothing_else() -> None:
    samples = [RUN_FIGURE.sample(1.5, text, text, text) for text in HOSTILE]
    content = render_samples(samples).content

    found = parsed(samples)
    assert list(found) == ["orchestrate_run_figure"]
    assert len(found["orchestrate_run_figure"]) == len(HOSTILE)
    assert all(
        len(value) <= MAX_LABEL
        for labels, _ in found["orchestrate_run_figure"]
        for value in labels.values()
    )
    assert b"\x1b" not in content
    assert len(content) < 10_000


@given(st.lists(st.tuples(st.text(), st.floats(allow_nan=False)), max_size=5))
def test_any_label_and_value_comes_back_once(told: list[tuple[str, float]]) -> None:
    samples = [RUN_RETRIES.sample(value, text) for text, value in told]

    rows = parsed(samples).get("orchestrate_run_retries_total", [])
    first: dict[tuple[str, ...], float] = {}
    for sample in samples:
        first.setdefault(sample.labels, sample.value)
    assert {labels["run"]: value for labels, value in rows} == {k[0]: v for k, v in first.items()}


def test_buckets_accumulate_and_end_with_the_count() -> None:
    latencies = RequestLatencies()
    for seconds in (0.005, 0.3, 0.3, 500.0):
        latencies.add(RequestTimes(latency=seconds, first=None, token=None))
    latencies.add(None)
    found = parsed(list(latencies.samples("r1")))

    buckets = {labels["le"]: value for labels, value in found[f"{REQUEST_LATENCY.name}_bucket"]}
    assert (buckets["0.005"], buckets["0.25"], buckets["0.5"], buckets["+Inf"]) == (1, 1, 3, 4)
    assert found[f"{REQUEST_LATENCY.name}_count"][0][1] == 4
    assert found[f"{REQUEST_LATENCY.name}_sum"][0][1] == 500.605
    assert found["orchestrate_requests_failed_total"][0][1] == 1


def test_openmetrics_is_chosen_by_the_header() -> None:
    accept = "application/openmetrics-text; version=1.0.0"
    answer = render_samples([RUN_RETRIES.sample(2, "r1")], accept)

    assert answer.content_type.startswith("application/openmetrics-text")
    (family,) = openmetrics.text_string_to_metric_families(answer.content.decode())
    assert (family.name, family.type) == ("orchestrate_run_retries", "counter")


def test_names_follow_the_rules_of_prometheus() -> None:
    """https://prometheus.io/docs/practices/naming: prefix, base units, `_total` for counters."""
    units = ("seconds", "bytes", "joules", "watts", "celsius", "ratio", "total", "info")
    for name, metric in METRICS.items():
        assert name.startswith("orchestrate_")
        assert ":" not in name
        assert name.endswith("_total") == (metric.kind is MetricKind.COUNTER)
        assert metric.help.endswith(".")
        assert len(metric.labels) <= 5
        for unit in ("milliseconds", "kb", "mb", "percent", "hours", "minutes"):
            assert unit not in name.split("_")
        if "timestamp" in name or "duration" in name or "latency" in name:
            assert name.endswith(units)
