"""A metric as it is declared, and one sample of it. Pure.

Names and units follow https://prometheus.io/docs/practices/naming: base units, ``_total`` for
counters, ratios from 0 to 1, times as seconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

MAX_LABEL = 128


class MetricKind(StrEnum):
    """The types of the exposition format that are used here."""

    GAUGE = "gauge"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricFamily:
    """``name`` as it is exported, with its unit and, for a counter, ``_total`` at its end.

    ``states``: the values of the last label, of which exactly one sample is 1 and the others are 0.
    ``bounds``: upper bounds of a histogram's buckets, ascending, without infinity.
    """

    name: str
    help: str
    kind: MetricKind = MetricKind.GAUGE
    labels: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()

    def sample(self, value: float, *labels: str) -> Sample:
        """One sample; ``labels`` are values, in the order of the metric's names."""
        assert len(labels) == len(self.labels), f"{self.name} has labels {self.labels}"
        return Sample(self, tuple(clean_label(label) for label in labels), float(value))

    def state_samples(self, state: str, *labels: str) -> list[Sample]:
        """A sample for each known state; all are 0 for an unknown one."""
        return [self.sample(known == state, *labels, known) for known in self.states]

    def histogram(self, counts: Sequence[float], total: float, *labels: str) -> Sample:
        """``counts``: observations of each bucket, not accumulated, the last one above all bounds;
        ``total``: the sum of all observed values.
        """
        assert len(counts) == len(self.bounds) + 1, f"{self.name} has {len(self.bounds)} bounds"
        return Sample(self, tuple(clean_label(label) for label in labels), total, tuple(counts))


@dataclass(frozen=True, slots=True)
class Sample:
    """``labels``: values in the order of the metric's names. Of a histogram ``value`` is the sum of
    what was observed, ``counts`` as in :meth:`Metric.histogram`.
    """

    metric: MetricFamily
    labels: tuple[str, ...]
    value: float
    counts: tuple[float, ...] = field(default=())


def clean_label(text: str) -> str:
    """A label's value out of foreign text: printable, of at most ``MAX_LABEL`` characters. Quotes
    and backslashes stay: the exposition escapes them.
    """
    short = text[:MAX_LABEL]
    return short if short.isprintable() else "".join(c if c.isprintable() else "?" for c in short)


def index_metrics(metrics: Sequence[MetricFamily]) -> Mapping[str, MetricFamily]:
    """Metrics by name. Raises ``ValueError`` for a name that two of them have."""
    found = {metric.name: metric for metric in metrics}
    if len(found) != len(metrics):
        names = [metric.name for metric in metrics]
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"declared twice: {', '.join(twice)}")
    return found
