"""What went over NVLink: payload per GPU and link, whether it was even, and whether it is what the
collectives that were reported need.

Payload counters count the bytes of data alone, however they are moved: by NCCL or by copy engines.
A ring sends for one collective of S bytes over n GPUs, per GPU (nccl-tests, doc/PERFORMANCE.md):
2(n-1)/n S for an all-reduce, (n-1)/n S for an all-gather, a reduce-scatter or an all-to-all. With
reduction in the switch (NVLS) less is sent.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.captures.points import Points, gained, rates

UNEVEN = 1.10  # the largest over the mean
ONCE = frozenset({"all-gather", "reduce-scatter", "all-to-all"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Collectives:
    """What one rank says it took part in: ``count`` times ``op`` on ``bytes`` among ``ranks``.

    ``bytes`` as nccl-tests counts them: the whole message, of which an all-gather, a reduce-scatter
    and an all-to-all give each rank 1/n.
    """

    op: str
    bytes: int
    ranks: int
    count: int


def payload_per_gpu(done: Collectives) -> float | None:
    """Bytes that each GPU sends, and receives; None for a collective without a formula here."""
    if done.ranks < 1:
        return None
    share = (done.ranks - 1) / done.ranks
    if done.op == "all-reduce":
        return 2 * share * done.bytes * done.count
    return share * done.bytes * done.count if done.op in ONCE else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """One direction of a GPU or link: ``bytes`` in all (None: its counter was reset), and the
    highest rate between two samples, in bytes per second.
    """

    bytes: float | None
    peak: float


def traffic(counted: Points) -> Traffic:
    """From a counter of bytes over time."""
    return Traffic(bytes=gained(counted), peak=max((r for _, r in rates(counted)), default=0.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFigures:
    """One GPU: all links together, and bytes sent and received by each link."""

    gpu: int
    seconds: float
    sent: Traffic
    received: Traffic
    links: Mapping[int, tuple[Traffic, Traffic]]

    @property
    def imbalance(self) -> float | None:
        """The busiest link over the mean of the GPU's links, both directions together."""
        totals = [_sum_known(pair) for pair in self.links.values()]
        return unevenness([total for total in totals if total is not None])


def _sum_known(pair: tuple[Traffic, Traffic]) -> float | None:
    sent, received = (one.bytes for one in pair)
    return None if sent is None or received is None else sent + received


def link_figures(gpu: int, counted: Mapping[int, tuple[Points, Points]], whole: int) -> LinkFigures:
    """``counted``: link -> bytes sent and received over time, under ``whole`` those of all links
    together.
    """
    sent, received = counted[whole]
    return LinkFigures(
        gpu=gpu,
        seconds=sent[-1][0] - sent[0][0] if sent else 0.0,
        sent=traffic(sent),
        received=traffic(received),
        links={link: (traffic(a), traffic(b)) for link, (a, b) in counted.items() if link != whole},
    )


def unevenness(amounts: Sequence[float]) -> float | None:
    """The largest over the mean; None where there are not two, or nothing went."""
    total = sum(amounts)
    return max(amounts) * len(amounts) / total if len(amounts) > 1 and total > 0 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What the GPUs of a node sent on average beside what the formula says. ``why_not``: what makes
    them incomparable; then ``ratio`` is None.
    """

    predicted: float
    measured: float | None
    why_not: str = ""

    @property
    def ratio(self) -> float | None:
        """Measured over predicted."""
        if self.why_not or self.measured is None or not self.predicted:
            return None
        return self.measured / self.predicted


def compare_payload(
    figures: Sequence[LinkFigures], done: Sequence[Collectives]
) -> Comparison | None:
    """``done``: by one rank, over the time that was sampled. None where nothing was reported."""
    if not done:
        return None
    parts = [payload_per_gpu(one) for one in done]
    predicted = sum(part for part in parts if part is not None)
    sent = [figure.sent.bytes for figure in figures]
    known = [amount for amount in sent if amount is not None]
    measured = sum(known) / len(known) if known and len(known) == len(sent) else None
    return Comparison(
        predicted=predicted, measured=measured, why_not=_why_not(figures, done, parts, measured)
    )


def _why_not(
    figures: Sequence[LinkFigures],
    done: Sequence[Collectives],
    parts: Sequence[float | None],
    measured: float | None,
) -> str:
    if None in parts:
        unknown = sorted({one.op for one, part in zip(done, parts, strict=True) if part is None})
        return f"no formula for {', '.join(unknown)}"
    wide = [one.ranks for one in done if one.ranks != len(figures)]
    if wide:
        return f"collectives among {wide[0]} ranks, and {len(figures)} GPUs on this node"
    return "" if measured is not None else "a counter was reset"
