"""What is assumed of the cost model's coefficients, in YAML."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.core.costs.tables import FamilyPriors, Prior
from orchestrator.parsing.inputs.costs.quantities import Name, Positive, Text
from orchestrator.parsing.inputs.validation import Strict, validate_document
from orchestrator.parsing.inputs.yaml_source import parse_yaml

Factor = Annotated[float, Field(gt=1, le=100, allow_inf_nan=False)]


class CoefficientEntry(Strict):
    """One coefficient, and the factor by which it may well be off; ``varies``: that by which it
    differs between machines with the same GPU.
    """

    value: Positive
    factor: Factor
    varies: Factor | None = None
    source: Text


class FamilyEntry(Strict):
    """The coefficients of one figure."""

    spread: Annotated[float, Field(gt=0, le=1)]
    coefficients: dict[Name, CoefficientEntry] = Field(min_length=1, max_length=20)


class CoefficientFile(Strict):
    """The whole file."""

    families: dict[Name, FamilyEntry] = Field(min_length=1, max_length=50)


def load_coefficients(data: bytes, source: str) -> dict[str, FamilyPriors]:
    """Raises :class:`UsageError` that lists every problem with file, line and nearest key."""
    file = validate_document(CoefficientFile, parse_yaml(data, source))
    return {
        name: FamilyPriors(
            priors=tuple(
                Prior(key, entry.value, entry.factor, entry.varies or 1.0)
                for key, entry in family.coefficients.items()
            ),
            spread=family.spread,
        )
        for name, family in file.families.items()
    }
