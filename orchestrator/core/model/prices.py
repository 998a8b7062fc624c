"""What electricity and other people's APIs cost: data with a date and a source, never facts."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.base.wire_names import wire


@wire("ElectricityPrice")
@dataclass(frozen=True, slots=True, kw_only=True)
class ElectricityPrice:
    """``per_kwh`` in ``currency``; ``pue``: what the site takes for each unit that the board takes
    (power usage effectiveness).
    """

    name: str
    currency: str
    per_kwh: float
    pue: float
    date: str
    source: str


@wire("ApiPrice")
@dataclass(frozen=True, slots=True, kw_only=True)
class ApiPrice:
    """What a provider asks for a million tokens of a model, in ``currency``."""

    name: str
    currency: str
    per_million_input: float
    per_million_output: float
    date: str
    source: str


@wire("Prices")
@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """A price list; ``source``: its file."""

    source: str = ""
    electricity: tuple[ElectricityPrice, ...] = ()
    apis: tuple[ApiPrice, ...] = ()
