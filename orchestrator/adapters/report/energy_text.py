"""Energy and cost of a run as names and texts, for reports and the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from orchestrator.core.base.figures import format_figure
from orchestrator.core.verdict.cost import Cost
from orchestrator.core.verdict.energy import Energy

Row = tuple[str, str]


def energy_rows(energy: Energy | None) -> Iterator[Row]:
    """Nothing without GPUs; figures that are not valid are marked, with the reasons."""
    if energy is None or not energy.gpus:
        return
    mark = "" if energy.valid else ", not valid"
    if energy.joules is not None:
        of = f"{energy.gpus} GPUs, {energy.seconds:.1f} s{mark}"
        yield "energy", f"{format_figure(energy.joules, 'J')} ({of}; {energy.source})"
    if energy.watts_mean is not None:
        peak = energy.watts_peak
        top = f", peak {format_figure(peak, 'W')}" if peak is not None else ""
        yield "power", f"mean {format_figure(energy.watts_mean, 'W')}{top}{mark}"
    if energy.tokens_per_joule is not None:
        yield "tokens per joule", f"{format_figure(energy.tokens_per_joule, 'tok/J')}{mark}"
    for unit, joules in energy.joules_per.items():
        yield f"energy per {unit.replace('_', ' ')}", f"{format_figure(joules, 'J')}{mark}"
    for reason in energy.reasons:
        yield "energy is not valid", reason


def cost_rows(cost: Cost | None) -> Iterator[Row]:
    """What is known of it."""
    if cost is None:
        return
    if cost.run is not None:
        hourly = f"{cost.per_hour:g} {cost.currency}/h"
        yield "cost of the run", f"{_money(cost.run, cost.currency)} ({hourly} for all nodes)"
    yield from _per_million("cost", cost.per_million, cost.currency)
    for part in cost.electricity:
        price = part.price
        name = f"electricity, {price.name}"
        at = f"{price.per_kwh:g} {price.currency}/kWh x PUE {price.pue:g}, {price.date}"
        yield name, f"{_money(part.run, price.currency)} ({at})"
        yield from _per_million(name, part.per_million, price.currency)
    for even in cost.break_even:
        told = f"{even.ratio:.3g} of its price for the same tokens ({even.price.date})"
        rate = format_figure(even.output_tokens_per_s, "tok/s")
        yield f"beside {even.price.name}", f"{told}; break-even at {rate} of output"


def _per_million(name: str, costs: Mapping[str, float], currency: str) -> Iterator[Row]:
    for kind, cost in costs.items():
        yield f"{name} per 1M {kind.replace('_', ' ')}", _money(cost, currency)


def _money(amount: float, currency: str) -> str:
    return f"{amount:.4g} {currency}"
