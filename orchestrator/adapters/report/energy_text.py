"""Energy and cost of a run as names and texts, for reports and the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.base.figures import format_figure
from orchestrator.core.verdict.cost import Cost, ElectricityCost
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
        hourly = f"{cost.per_hour:g} {cost.currency}/h for all nodes"
        yield "cost of the run", f"{_money(cost.run, cost.currency)} ({hourly})"
    for kind, amount in cost.per_million.items():
        yield f"cost per 1M {_words(kind)}", _money(amount, cost.currency)
    for part in cost.electricity:
        yield f"electricity, {part.price.name}", _electricity(part)
    for even in cost.break_even:
        rate = format_figure(even.output_tokens_per_s, "tok/s")
        told = f"costs {even.ratio:.3g} times as much as the same tokens there"
        yield f"beside {even.price.name}", f"{told} ({even.price.date}); break-even: {rate} output"


def _electricity(part: ElectricityCost) -> str:
    price = part.price
    told = f"{_money(part.run, price.currency)} while measured"
    for kind in ("output_tokens", "tokens"):
        if kind in part.per_million:
            told += f", {_money(part.per_million[kind], price.currency)} per 1M {_words(kind)}"
            break
    return f"{told} ({price.per_kwh:g} {price.currency}/kWh, PUE {price.pue:g}, {price.date})"


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _money(amount: float, currency: str) -> str:
    return f"{amount:.4g} {currency}"
