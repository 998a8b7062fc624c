"""Price lists: electricity and APIs, each price with its date and source, in YAML."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.core.model.prices import ApiPrice, ElectricityPrice, Prices
from orchestrator.parsing.inputs.validation import Strict, validate_document
from orchestrator.parsing.inputs.yaml_source import parse_yaml

MAX_PRICES = 50

Text = Annotated[str, Field(min_length=1, max_length=200)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
Date = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$")]
Amount = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]


class ElectricityEntry(Strict):
    """One place's price of a kilowatt-hour."""

    name: Text
    currency: Currency
    per_kwh: Amount
    pue: float = Field(default=1.0, ge=1, le=10, allow_inf_nan=False)
    date: Date
    source: Text


class ApiEntry(Strict):
    """One provider's price of a model's tokens."""

    name: Text
    currency: Currency
    per_million_input: Amount
    per_million_output: Amount
    date: Date
    source: Text


class PriceFile(Strict):
    """The whole file."""

    electricity: list[ElectricityEntry] = Field(default_factory=list, max_length=MAX_PRICES)
    apis: list[ApiEntry] = Field(default_factory=list, max_length=MAX_PRICES)


def load_prices(data: bytes, source: str) -> Prices:
    """Raises :class:`UsageError` that lists every problem with file, line and nearest key."""
    file = validate_document(PriceFile, parse_yaml(data, source))
    return Prices(
        source=source,
        electricity=tuple(ElectricityPrice(**entry.model_dump()) for entry in file.electricity),
        apis=tuple(ApiPrice(**entry.model_dump()) for entry in file.apis),
    )
