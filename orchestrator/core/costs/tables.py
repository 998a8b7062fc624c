"""What hardware files say, what is assumed of coefficients, and what was fitted: data alone, since
every plan reads it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from orchestrator.core.base.wire_names import wire
from orchestrator.core.costs.estimate import Family
from orchestrator.core.costs.hardware import GpuHardware, GpuKind, Latency
from orchestrator.core.costs.model_shape import ModelShape
from orchestrator.core.costs.predict import CostModel


@wire("CostPrior")
class Prior(NamedTuple):
    """What is known of a coefficient before anything was measured: its value, and the factor by
    which it may well be off (one standard deviation of its logarithm). ``varies``: likewise, that
    by which it differs between machines with the same GPU, however well one of them was measured:
    what the host does.
    """

    name: str
    value: float
    factor: float
    varies: float = 1.0

    @property
    def width(self) -> float:
        """The variance of its logarithm on a machine that was not measured."""
        return math.log(self.factor) ** 2 + math.log(self.varies) ** 2


@wire("FamilyPriors")
class FamilyPriors(NamedTuple):
    """What is assumed of a family: ``spread`` of repeated measurements."""

    priors: tuple[Prior, ...]
    spread: float


@wire("CostTables")
class CostTables(NamedTuple):
    """What hardware files say: GPUs and models by the names of their files, links by kind, what is
    assumed of each family.
    """

    gpus: Mapping[str, GpuKind]
    links: Mapping[str, Latency]
    assumed: Mapping[str, FamilyPriors]
    models: Mapping[str, ModelShape] = MappingProxyType({})

    def gpu_called(self, name: str) -> str | None:
        """The file of the GPU that a driver or an inventory calls so; None where none fits."""
        short = name.lower()
        if short in self.gpus:
            return short
        begins = {
            len(known): key
            for key, gpu in self.gpus.items()
            for known in gpu.device.names
            if name.startswith(known)
        }
        return begins[max(begins)] if begins else None


@wire("FitQuality")
class FitQuality(NamedTuple):
    """Errors of a family when each of its points is predicted by the others: mean absolute
    percentage error and bias as fractions, and the share that lies in the 90 % interval.
    """

    points: int
    mape: float
    bias: float
    inside: float


@wire("Calibration")
class Calibration(NamedTuple):
    """Fitted families of one kind of GPU. ``device`` is its name; ``made`` a date; ``missing``:
    what was not fitted, and why.
    """

    device: str
    made: str
    source: str
    families: Mapping[str, Family]
    coverage: Mapping[str, Mapping[str, tuple[float, ...]]]
    quality: Mapping[str, FitQuality] = MappingProxyType({})
    missing: tuple[str, ...] = ()
    schema_version: int = 1


def uninformed(priors: Sequence[Prior], spread: float) -> Family:
    """A family that nothing was measured for: as wide as its priors."""
    widths = [prior.width for prior in priors]
    size = range(len(priors))
    return Family(
        names=tuple(prior.name for prior in priors),
        logs=tuple(math.log(prior.value) for prior in priors),
        covariance=tuple(tuple(widths[i] if i == j else 0.0 for j in size) for i in size),
        spread=spread,
    )


def model_of(
    device: GpuHardware, assumed: Mapping[str, FamilyPriors], calibration: Calibration | None
) -> CostModel:
    """The cost model of a device: fitted families, and assumed ones for what was not fitted."""
    families = {name: uninformed(each.priors, each.spread) for name, each in assumed.items()}
    fitted = {} if calibration is None else _usable(calibration.families, assumed)
    if calibration is None or not fitted:
        basis = f"data sheet of {device.name}; nothing was measured on it"
        return CostModel(device=device, families=families, basis=basis)
    points = max(family.points for family in fitted.values())
    coverage = {
        kind: {name: (bounds[0], bounds[-1]) for name, bounds in each.items()}
        for kind, each in calibration.coverage.items()
    }
    return CostModel(
        device=device,
        families=families | fitted,
        basis=f"{points} points measured on {device.name}, {calibration.made}",
        coverage=coverage,
    )


def _usable(fitted: Mapping[str, Family], assumed: Mapping[str, FamilyPriors]) -> dict[str, Family]:
    """Those with the coefficients that there are now: an earlier release had other terms."""
    wanted = {name: {prior.name for prior in each.priors} for name, each in assumed.items()}
    return {name: each for name, each in fitted.items() if {*each.names} == wanted.get(name)}
