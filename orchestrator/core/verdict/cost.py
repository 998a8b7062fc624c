"""What a run cost, by the prices that are known: of its nodes, of electricity, of APIs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.core.base.figures import sum_of_all
from orchestrator.core.base.wire_names import wire
from orchestrator.core.model.prices import ApiPrice, ElectricityPrice, Prices
from orchestrator.core.verdict.energy import Energy

if TYPE_CHECKING:
    from orchestrator.core.model.inventory import Cluster

HOUR_S = 3600.0
JOULES_PER_KWH = 3.6e6
MILLION = 1e6
# What a price for a million of them is given for; whole costs by each kind, so they do not add up.
KINDS = ("tokens", "input_tokens", "output_tokens")


@wire("ElectricityCost")
@dataclass(frozen=True, slots=True, kw_only=True)
class ElectricityCost:
    """The measured energy x PUE x price. ``per_million`` as in :class:`Cost`."""

    price: ElectricityPrice
    run: float
    per_million: Mapping[str, float] = field(default_factory=dict)


@wire("BreakEven")
@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven:
    """The same tokens bought from an API. ``ratio``: own cost by the API's; below 1, the nodes are
    cheaper. ``output_tokens_per_s``: the rate from which on they are, with the same mix of tokens.
    """

    price: ApiPrice
    api: float
    ratio: float
    output_tokens_per_s: float


@wire("Cost")
@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """``per_hour``, ``run`` and ``per_million`` come from the nodes' prices in ``currency``; None
    and empty where one of them has none. ``run`` is for all of its time; ``per_million`` maps kinds
    of tokens to the measured window's cost by a million of them.
    """

    currency: str
    per_hour: float | None = None
    run: float | None = None
    per_million: Mapping[str, float] = field(default_factory=dict)
    electricity: tuple[ElectricityCost, ...] = ()
    break_even: tuple[BreakEven, ...] = ()


def cost_of(
    cluster: Cluster,
    nodes: tuple[str, ...],
    wall_s: float,
    energy: Energy | None,
    prices: Prices | None,
) -> Cost | None:
    """The cost of ``nodes`` over ``wall_s`` seconds; None where no price is known."""
    per_hour = sum_of_all([cluster.node(name).price_per_hour for name in nodes])
    electricity = tuple(_electricity(energy, prices)) if energy and prices else ()
    if per_hour is None and not electricity:
        return None
    window = per_hour * energy.seconds / HOUR_S if per_hour and energy else 0.0
    return Cost(
        currency=cluster.currency,
        per_hour=per_hour,
        run=per_hour * wall_s / HOUR_S if per_hour is not None else None,
        per_million=_per_million(window, energy) if per_hour is not None and energy else {},
        electricity=electricity,
        break_even=tuple(_break_even(window, cluster.currency, energy, prices))
        if energy and prices and window
        else (),
    )


def _per_million(cost: float, energy: Energy) -> dict[str, float]:
    return {kind: cost / energy.work[kind] * MILLION for kind in KINDS if energy.work.get(kind)}


def _electricity(energy: Energy, prices: Prices) -> Iterator[ElectricityCost]:
    """Only of energy that is valid."""
    for price in prices.electricity if energy.valid and energy.joules else ():
        cost = (energy.joules or 0.0) * price.pue * price.per_kwh / JOULES_PER_KWH
        yield ElectricityCost(price=price, run=cost, per_million=_per_million(cost, energy))


def _break_even(
    window: float, currency: str, energy: Energy, prices: Prices
) -> Iterator[BreakEven]:
    """By prices in the nodes' currency, where tokens of both kinds were counted."""
    read, written = (energy.work.get(kind, 0.0) for kind in ("input_tokens", "output_tokens"))
    for price in prices.apis if read and written and energy.seconds > 0 else ():
        api = (read * price.per_million_input + written * price.per_million_output) / MILLION
        if price.currency == currency and api > 0:
            ratio = window / api
            rate = written / energy.seconds * ratio
            yield BreakEven(price=price, api=api, ratio=ratio, output_tokens_per_s=rate)
