"""Samples as Prometheus reads them, through prometheus-client with a registry of our own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.adapters.extras import install_command
from orchestrator.core.base.errors import UsageError
from orchestrator.core.monitoring.catalogue import METRICS
from orchestrator.core.monitoring.metric import Metric, MetricKind, Sample

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric as Family


class Exposition(NamedTuple):
    """The body of an answer, and the type that its header states."""

    content: bytes
    content_type: str


def render_samples(samples: Iterable[Sample], accept: str = "") -> Exposition:
    """Of each series the first sample, by metric in the catalogue's order. ``accept``: the header
    of the request, which chooses between Prometheus' text format and OpenMetrics.

    Raises :class:`UsageError` where prometheus-client is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder
    except ModuleNotFoundError as error:
        what = "metrics need prometheus-client, and it is not installed"
        remedy = install_command("serve")
        raise UsageError(what, id="monitor.extra", remedy=remedy) from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(list(_families(samples))))
    encode, content_type = choose_encoder(accept)
    return Exposition(encode(registry), content_type)


class _Collected:
    """What prometheus-client asks for its metrics."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families


def _families(samples: Iterable[Sample]) -> Iterator[Family]:
    by_metric: dict[str, dict[tuple[str, ...], Sample]] = {name: {} for name in METRICS}
    for sample in samples:
        by_metric[sample.metric.name].setdefault(sample.labels, sample)
    for name, found in by_metric.items():
        if found:
            yield _family(METRICS[name], found.values())


def _family(metric: Metric, samples: Iterable[Sample]) -> Family:
    from prometheus_client.metrics_core import Metric as Family

    counter = metric.kind is MetricKind.COUNTER
    name = metric.name.removesuffix("_total") if counter else metric.name
    family = Family(name, metric.help, metric.kind.value)
    labels = metric.labels
    for sample in samples:
        own = dict(zip(labels, sample.labels, strict=True))
        if metric.kind is MetricKind.HISTOGRAM:
            _add_buckets(family, metric, own, sample)
        else:
            family.add_sample(metric.name, own, sample.value)
    return family


def _add_buckets(family: Family, metric: Metric, labels: dict[str, str], sample: Sample) -> None:
    below = 0.0
    for bound, count in zip([*map(str, metric.bounds), "+Inf"], sample.counts, strict=True):
        below += count
        family.add_sample(f"{metric.name}_bucket", {**labels, "le": bound}, below)
    family.add_sample(f"{metric.name}_count", labels, below)
    family.add_sample(f"{metric.name}_sum", labels, sample.value)
