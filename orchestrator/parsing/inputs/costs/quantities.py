"""A constant with its unit and source, as every file of the cost model writes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from orchestrator.parsing.inputs.validation import Strict

Text = Annotated[str, Field(min_length=1, max_length=300)]
Name = Annotated[str, Field(min_length=1, max_length=80)]
Positive = Annotated[float, Field(gt=0, le=1e18, allow_inf_nan=False)]
# In SI units of their kind.
FACTORS = {
    "TFLOP/s": 1e12,
    "GB": 1e9,
    "GB/s": 1e9,
    "TB/s": 1e12,
    "W": 1.0,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "1": 1.0,
    "tok/s": 1.0,
    "USD/h": 1.0,
    "tokens": 1.0,
}


class SourcedQuantity(Strict):
    """One constant. ``unit`` is checked by the field that it stands in."""

    value: Positive
    unit: str
    source: Text

    @property
    def si(self) -> float:
        """In the SI unit of its kind: bytes, bytes/s, FLOP/s, seconds."""
        return self.value * FACTORS[self.unit]


class Compute(SourcedQuantity):
    """Arithmetic."""

    unit: Literal["TFLOP/s"]


class Size(SourcedQuantity):
    """Bytes."""

    unit: Literal["GB"]


class SourcedRate(SourcedQuantity):
    """Bytes in a second."""

    unit: Literal["GB/s", "TB/s"]


class Watts(SourcedQuantity):
    """Power."""

    unit: Literal["W"]


class Duration(SourcedQuantity):
    """A time."""

    unit: Literal["us", "ms"]


class Ratio(SourcedQuantity):
    """A number without a unit."""

    unit: Literal["1"]


class TokenRate(SourcedQuantity):
    """Tokens in a second."""

    unit: Literal["tok/s"]


class HourPrice(SourcedQuantity):
    """Of one GPU."""

    unit: Literal["USD/h"]


class Tokens(SourcedQuantity):
    """A number of tokens."""

    unit: Literal["tokens"]
