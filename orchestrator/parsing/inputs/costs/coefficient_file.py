"""Coefficients of the cost model: what is assumed (YAML), and what was fitted (JSON)."""

from __future__ import annotations

import json
from typing import Annotated

from pydantic import Field

from orchestrator.core.base.codec import CodecError, from_json
from orchestrator.core.base.errors import UsageError
from orchestrator.core.costs.calibration import Calibration, FamilyPriors
from orchestrator.core.costs.fitting import Prior
from orchestrator.parsing.inputs.costs.quantities import Name, Positive, Text
from orchestrator.parsing.inputs.validation import Strict, validate_document
from orchestrator.parsing.inputs.yaml_source import parse_yaml

Factor = Annotated[float, Field(gt=1, le=100, allow_inf_nan=False)]


class CoefficientEntry(Strict):
    """One coefficient, and the factor by which it may well be off."""

    value: Positive
    factor: Factor
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
                Prior(key, entry.value, entry.factor) for key, entry in family.coefficients.items()
            ),
            spread=family.spread,
        )
        for name, family in file.families.items()
    }


def load_calibration(data: bytes, source: str) -> Calibration:
    """What ``model calibrate`` wrote. Raises :class:`UsageError` for anything else."""
    try:
        found = from_json(Calibration, json.loads(data))
    except (ValueError, CodecError, RecursionError) as error:
        raise UsageError(
            f"not a calibration: {error}",
            id="model.calibration",
            where=source,
            remedy="orchestrate model calibrate writes it anew",
        ) from None
    assert isinstance(found, Calibration)
    return found
