"""What a GPU drew, how fast it was clocked and by what held back, and how full its memory was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from orchestrator.core.captures.points import Points, gained, integral, mean_over_time

MAX_DISAGREEMENT = 0.05  # of the integral of power and the energy counter
COUNTER_UPDATE_S = 0.1  # how often the counter moves, as seen on an H200
MIN_COMPARED_S = COUNTER_UPDATE_S / MAX_DISAGREEMENT
# nvml.h, nvmlClocksEventReasons
REASONS: Mapping[int, str] = {
    0x1: "idle",
    0x2: "set by the user",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal, by software",
    0x40: "thermal, by hardware",
    0x80: "power brake",
    0x100: "display",
}
IDLE = "idle"


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerFigures:
    """Of one GPU. ``joules`` by its counter, ``integrated`` from its power; ``problem``: why the
    two do not confirm each other, empty where they do.
    """

    seconds: float
    mean_w: float | None
    peak_w: float | None
    joules: float | None
    integrated: float | None
    problem: str = ""

    @property
    def disagreement(self) -> float | None:
        """The integral over the counter, less 1."""
        if not self.joules or self.integrated is None:
            return None
        return self.integrated / self.joules - 1


def power_figures(watts: Points, joules: Points) -> PowerFigures:
    """From the power in W and the energy counter in J, each over time in seconds."""
    either = watts or joules
    seconds = either[-1][0] - either[0][0] if either else 0.0
    used = gained(joules)
    found = PowerFigures(
        seconds=seconds,
        mean_w=mean_over_time(watts) if watts else None,
        peak_w=max((value for _, value in watts), default=None),
        joules=used,
        integrated=integral(watts) if len(watts) > 1 else None,
    )
    return replace(found, problem=_problem(found, reset=bool(joules) and used is None))


def _problem(found: PowerFigures, *, reset: bool) -> str:
    if reset:
        return "the energy counter was reset"
    if found.joules is None:
        return "no energy counter"
    if found.integrated is None:
        return "no power readings to check the energy counter with"
    if found.seconds < MIN_COMPARED_S:
        return f"{found.seconds:.2g} s are too short for a counter that moves every 0.1 s"
    if found.joules == 0:
        return "the energy counter did not move"
    difference = found.disagreement or 0.0
    if abs(difference) > MAX_DISAGREEMENT:
        return f"counter and integrated power are {abs(difference):.1%} apart"
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockFigures:
    """Of one GPU. ``held``: reason -> part of the time in which it held clocks down, 0 to 1;
    several may hold at once.
    """

    median_mhz: float
    least_mhz: float
    most_mhz: float
    held: Mapping[str, float]
    hottest_c: float | None

    @property
    def worst(self) -> tuple[str, float] | None:
        """The reason, other than having no work, that held longest."""
        named = [(part, reason) for reason, part in self.held.items() if reason != IDLE]
        return (max(named)[1], max(named)[0]) if named else None


def clock_figures(
    mhz: Points, reasons: Sequence[tuple[float, int]], celsius: Points
) -> ClockFigures | None:
    """From the SM clock, bits of :data:`REASONS` and the temperature over time; None without any
    clock.
    """
    if not mhz:
        return None
    values = [value for _, value in mhz]
    return ClockFigures(
        median_mhz=median(values),
        least_mhz=min(values),
        most_mhz=max(values),
        held=_held(reasons),
        hottest_c=max((value for _, value in celsius), default=None),
    )


def _held(reasons: Sequence[tuple[float, int]]) -> dict[str, float]:
    """Each sample stands for the time up to the next one."""
    seconds = reasons[-1][0] - reasons[0][0] if reasons else 0.0
    if seconds <= 0:
        return {}
    held = dict.fromkeys(REASONS, 0.0)
    for (t0, mask), (t1, _) in pairwise(reasons):
        for bit in REASONS:
            held[bit] += t1 - t0 if mask & bit else 0.0
    return {REASONS[bit]: min(1.0, part / seconds) for bit, part in held.items() if part}


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryFigures:
    """Of one GPU, in bytes; ``peak_at`` in seconds."""

    first: float
    peak: float
    peak_at: float
    last: float


def memory_figures(used: Points) -> MemoryFigures | None:
    """None without a sample."""
    if not used:
        return None
    at, peak = max(used, key=lambda point: point[1])
    return MemoryFigures(first=used[0][1], peak=peak, peak_at=at, last=used[-1][1])
