"""What a study says, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.costs.hardware import FabricHardware, GpuHardware


class Strategy(StrEnum):
    """How GPUs share the work: one group over all of them, a copy of everything on each, or groups
    that are copies of each other.
    """

    EXPERT = "expert"
    DATA = "data"
    HYBRID = "hybrid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """The model: bytes of one expert over all layers, and of everything that is no expert; values
    of ``activation_bytes`` that travel for a token; ``skew`` of the experts' popularity (see
    ``expert_load.Routing``); ``sequences`` under way on each GPU.
    """

    experts: int
    active: int
    expert_bytes: float
    dense_bytes: float
    hidden: int
    layers: int
    activation_bytes: float
    sequences: int
    skew: float
    draws: int
    seed: int

    @property
    def expert_share(self) -> float:
        """Of the bytes that a token reads, those of experts."""
        read = self.active * self.expert_bytes
        return read / (read + self.dense_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A program: tokens/s of one reference GPU, its communication by that of the plain one, and the
    share of uneven load that it foresees and moves away.
    """

    name: str
    tokens_per_s: float
    communication: float
    foreseen: float


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """``groups`` of the hybrid strategy: GPUs that share experts, and copies of that."""

    name: str
    device: GpuHardware
    gpus: int
    fabric: FabricHardware
    price_per_gpu_hour: float
    groups: tuple[int, int]

    def layout(self, strategy: Strategy) -> tuple[int, int]:
        """GPUs of a group, and groups."""
        if strategy is Strategy.HYBRID:
            return self.groups
        return (self.gpus, 1) if strategy is Strategy.EXPERT else (1, self.gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """What the study's owner expects of a figure. ``runtime`` empty: the ratio of the second
    runtime to the first.
    """

    system: str
    strategy: Strategy
    runtime: str
    figure: str
    low: float
    high: float
    place: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """``reference``: the GPU that the runtimes' rates are of; others are as fast as their memory.
    ``tokens_per_month``: for the cost of a year.
    """

    name: str
    title: str
    source: str
    mixture: Mixture
    reference: GpuHardware
    runtimes: tuple[Runtime, ...]
    systems: tuple[System, ...]
    strategies: tuple[Strategy, ...]
    tokens_per_month: float
    bands: tuple[Band, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyRow:
    """One system, strategy and runtime. Seconds are of one step: a token for each sequence.

    ``efficiency``: tokens/s by those of so many GPUs alone. ``amdahl``: the most that this part of
    communication allows as speed-up. ``yearly_usd`` for the study's tokens; ``yearly_savings`` by
    the first runtime's. ``fits``: the weights of a group are in the memory of its GPUs.
    """

    system: str
    strategy: Strategy
    runtime: str
    gpus: int
    group: int
    copies: int
    tokens_per_s: float
    compute_s: float
    communication_s: float
    communication_share: float
    imbalance: float
    efficiency: float
    speedup: float
    amdahl: float
    usd_per_million: float
    yearly_usd: float
    yearly_savings: float
    fits: bool


class Standing(StrEnum):
    """A figure and its band."""

    INSIDE = "inside"
    BELOW = "below"
    ABOVE = "above"


@dataclass(frozen=True, slots=True, kw_only=True)
class BandCheck:
    """``reason``: why the band cannot hold, where physics or the study's own inputs forbid it."""

    band: Band
    value: float
    standing: Standing
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """Something that the inputs ask for and the hardware cannot do."""

    system: str
    id: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """By how much tokens/s move, as a fraction, if an input is lower or higher by ``change``."""

    system: str
    input: str
    change: float
    lower: float
    higher: float

    @property
    def reach(self) -> float:
        """The larger of both movements."""
        return max(abs(self.lower), abs(self.higher))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Everything that a study finds; the first of ``sensitivities`` of a system moves it most."""

    study: Study
    rows: tuple[StudyRow, ...]
    checks: tuple[BandCheck, ...] = ()
    violations: tuple[Violation, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()

    def row(self, system: str, strategy: Strategy, runtime: str) -> StudyRow:
        """Raises ``KeyError``."""
        for row in self.rows:
            if (row.system, row.strategy, row.runtime) == (system, strategy, runtime):
                return row
        raise KeyError((system, strategy, runtime))
