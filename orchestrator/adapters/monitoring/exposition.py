"""Samples as Prometheus reads them, through prometheus-client with a registry of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.adapters.extras import install_command
from orchestrator.core.base.errors import UsageError
from orchestrator.core.monitoring.catalogue import METRICS
from orchestrator.core.monitoring.metric import MetricFamily, MetricKind, Sample

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric as Family

    Encode = Callable[[CollectorRegistry], bytes]

Values = dict[tuple[str, ...], tuple[float, tuple[float, ...]]]  # labels -> value, counts


class Exposition(NamedTuple):
    """The body of an answer, and the type that its header states."""

    content: bytes
    content_type: str


def render_samples(samples: Iterable[Sample], accept: str = "") -> Exposition:
    """One answer, of a renderer that is not kept: see :meth:`Renderer.render`."""
    return Renderer().render(samples, accept)


class Renderer:
    """Kept between scrapes, it writes anew only the metrics of which a value changed: most figures
    of nodes are those of a probe, and to write them takes most of the time of a scrape.
    """

    def __init__(self) -> None:
        self._written: dict[str, tuple[Values, bytes]] = {}

    def render(self, samples: Iterable[Sample], accept: str = "") -> Exposition:
        """Of each series the first sample, by metric in the catalogue's order. ``accept``: the
        header of the request. Who takes both gets Prometheus' text format, although Prometheus 2
        prefers OpenMetrics: nothing that only the latter has is written here, and prometheus-client
        takes nearly twice as long to write it.

        Raises :class:`UsageError` where prometheus-client is not installed.
        """
        try:
            from prometheus_client.exposition import choose_encoder
        except ModuleNotFoundError as error:
            what = "metrics need prometheus-client, and it is not installed"
            remedy = install_command("serve")
            raise UsageError(what, id="monitor.extra", remedy=remedy) from error
        by_metric = _by_metric(samples)
        if accept and "text/plain" not in accept and "*/*" not in accept:
            encode, content_type = choose_encoder(accept)
            families = [_family(METRICS[name], values) for name, values in by_metric.items()]
            return Exposition(encode(_registry(families)), content_type)
        encode, content_type = choose_encoder("")
        self._written = {name: self._write(name, by_metric[name], encode) for name in by_metric}
        return Exposition(b"".join(text for _, text in self._written.values()), content_type)

    def _write(self, name: str, values: Values, encode: Encode) -> tuple[Values, bytes]:
        known = self._written.get(name)
        if known is not None and known[0] == values:
            return known
        return values, encode(_registry([_family(METRICS[name], values)]))


def _registry(families: list[Family]) -> CollectorRegistry:
    from prometheus_client import CollectorRegistry

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families))
    return registry


class _Collected:
    """What prometheus-client asks for its metrics."""

    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterable[Family]:
        return self._families


def _by_metric(samples: Iterable[Sample]) -> dict[str, Values]:
    """Those metrics that have samples."""
    by_metric: dict[str, Values] = {name: {} for name in METRICS}
    for sample in samples:
        by_metric[sample.metric.name].setdefault(sample.labels, (sample.value, sample.counts))
    return {name: values for name, values in by_metric.items() if values}


def _family(metric: MetricFamily, values: Values) -> Family:
    from prometheus_client.metrics_core import Metric as Family

    counter = metric.kind is MetricKind.COUNTER
    name = metric.name.removesuffix("_total") if counter else metric.name
    family = Family(name, metric.help, metric.kind.value)
    for labels, (value, counts) in values.items():
        own = dict(zip(metric.labels, labels, strict=True))
        if metric.kind is MetricKind.HISTOGRAM:
            _add_buckets(family, metric, own, value, counts)
        else:
            family.add_sample(metric.name, own, value)
    return family


def _add_buckets(
    family: Family,
    metric: MetricFamily,
    labels: dict[str, str],
    total: float,
    counts: tuple[float, ...],
) -> None:
    below = 0.0
    for bound, count in zip([*map(str, metric.bounds), "+Inf"], counts, strict=True):
        below += count
        family.add_sample(f"{metric.name}_bucket", {**labels, "le": bound}, below)
    family.add_sample(f"{metric.name}_count", labels, below)
    family.add_sample(f"{metric.name}_sum", labels, total)
