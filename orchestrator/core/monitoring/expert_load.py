"""How the tokens of a layer are spread over its experts. Pure.

All figures are of one layer: added up over layers, one that is skewed one way and one that is
skewed the other way would look even.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from orchestrator.core.monitoring import expert_metrics as metrics
from orchestrator.core.monitoring.catalogue import MAX_LAYERS
from orchestrator.core.monitoring.metric import Sample

SHOWN_EXPERTS = 8
Counts = Sequence[float]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLoad:
    """One layer of ``experts`` that got ``tokens`` together.

    ``gini``: half the mean absolute difference of all pairs by the mean (Gini 1912), 0 = all alike,
    (n - 1) / n = one has all. ``max_to_mean``: the busiest by the mean. ``variation``: standard
    deviation (of all, so by n) by the mean. ``dead``: part that got no token. ``effective``:
    exp(entropy of the shares, in nats), Hill's number of order 1, by the number of experts.
    """

    layer: str
    experts: int
    tokens: float
    gini: float
    max_to_mean: float
    variation: float
    dead: float
    effective: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertTable:
    """Tokens by layer and expert, of one source. ``windows``: the same for parts of the time,
    oldest first; empty where there was one look only. ``of``: what is counted, experts or GPUs.
    ``latencies``: seconds that each takes alone for its tokens of one pass, None = not measured;
    empty where none was.
    """

    source: str
    layers: tuple[str, ...]
    counts: tuple[tuple[float, ...], ...]
    windows: tuple[tuple[tuple[float, ...], ...], ...] = ()
    of: str = "experts"
    latencies: tuple[tuple[float | None, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerLatency:
    """Seconds that the experts of a layer take alone, those that were measured. ``slowest``: their
    numbers, the slowest first.
    """

    p50: float
    max: float
    slowest: tuple[int, ...]


def layer_load(layer: str, counts: Counts) -> LayerLoad | None:
    """None where no token was routed: nothing can be said. Raises ``ValueError`` for a negative or
    infinite count, and for no experts.
    """
    if not counts or not all(math.isfinite(count) and count >= 0 for count in counts):
        raise ValueError(f"layer {layer}: expected a count for each expert, none below 0")
    size, total = len(counts), math.fsum(counts)
    if not total:
        return None
    mean = total / size
    used = [count / total for count in counts if count]
    return LayerLoad(
        layer=layer,
        experts=size,
        tokens=total,
        gini=_gini(counts, total),
        max_to_mean=max(counts) / mean,
        variation=math.sqrt(math.fsum((count - mean) ** 2 for count in counts) / size) / mean,
        dead=1 - len(used) / size,
        effective=math.exp(-math.fsum(share * math.log(share) for share in used)) / size,
    )


def _gini(counts: Counts, total: float) -> float:
    """The sum of (2 i - n - 1) x_i over rising values, by n times the total: in n log n."""
    size = len(counts)
    weighted = math.fsum((2 * i - size - 1) * x for i, x in enumerate(sorted(counts), 1))
    return weighted / (size * total)


def table_loads(table: ExpertTable) -> list[LayerLoad]:
    """Of every layer that got a token."""
    pairs = zip(table.layers, table.counts, strict=True)
    loads = (layer_load(layer, counts) for layer, counts in pairs)
    return [load for load in loads if load is not None]


def window_loads(table: ExpertTable, layer: str) -> list[LayerLoad]:
    """Of one layer in each window in which it got a token, oldest first."""
    place = table.layers.index(layer)
    loads = (layer_load(layer, window[place]) for window in table.windows)
    return [load for load in loads if load is not None]


def busiest_and_idlest(counts: Counts, shown: int = SHOWN_EXPERTS) -> tuple[list[int], list[int]]:
    """The experts with the most tokens, the most first, and with the fewest, the fewest first."""
    order = sorted(range(len(counts)), key=lambda expert: (-counts[expert], expert))
    return order[:shown], order[::-1][:shown]


def layer_latency(table: ExpertTable, layer: str) -> LayerLatency | None:
    """None where no expert of the layer was measured."""
    if not table.latencies:
        return None
    measured = enumerate(table.latencies[table.layers.index(layer)])
    known = [(seconds, expert) for expert, seconds in measured if seconds is not None]
    if not known:
        return None
    known.sort(key=lambda pair: (-pair[0], pair[1]))
    seconds = [value for value, _ in known]
    slowest = tuple(expert for _, expert in known[:SHOWN_EXPERTS])
    return LayerLatency(p50=median(seconds), max=seconds[0], slowest=slowest)


def added_up(windows: Sequence[Sequence[Counts]]) -> tuple[tuple[float, ...], ...]:
    """Counts by layer and expert over all windows."""
    by_layer = zip(*windows, strict=True)
    return tuple(tuple(map(math.fsum, zip(*layer, strict=True))) for layer in by_layer)


def expert_samples(run: str, table: ExpertTable) -> Iterator[Sample]:
    """Five series a layer, however many experts it has."""
    for load in table_loads(table)[:MAX_LAYERS]:
        place = (run, load.layer)
        yield metrics.EXPERT_GINI.sample(load.gini, *place)
        yield metrics.EXPERT_MAX.sample(load.max_to_mean, *place)
        yield metrics.EXPERT_CV.sample(load.variation, *place)
        yield metrics.EXPERT_DEAD.sample(load.dead, *place)
        yield metrics.EXPERT_EFFECTIVE.sample(load.effective, *place)
