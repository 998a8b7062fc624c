"""The energy of GPUs inside a measured window, from readings of their counters. Pure.

The figure is the difference of NVML's total-energy counter. The integral of power readings over the
same time, by trapezoids, has to agree with it; what does not is said and makes the figure invalid.
"""

from __future__ import annotations

from typing import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Tuple

MAX_GAP_S = 3.0
MAX_DISAGREEMENT = 0.05
COUNTER_UPDATE_S = 0.1  # how often it moves, as seen on an H200
# Seconds in which one missed update of the counter is as much as it may disagree.
MIN_PART_S = COUNTER_UPDATE_S / MAX_DISAGREEMENT


class Reading(NamedTuple):
    """One GPU at ``t`` seconds of a monotonic clock. None: not readable, and ``trouble`` says why.

    ``millijoules`` since the driver was loaded; ``watts`` at this moment.
    """

    t: float
    millijoules: Optional[int]
    watts: Optional[float]
    trouble: str = ""


class GpuEnergy(NamedTuple):
    """What one GPU used. ``joules`` None: nothing can be said. ``integrated``: the integral of its
    power, to check it. No ``problems``: it is valid.
    """

    gpu: str
    joules: Optional[float]
    integrated: Optional[float]
    problems: Tuple[str, ...]


class GpuMeter:
    """Adds up one GPU's readings, in memory that does not grow with their number."""

    def __init__(self, gpu: str) -> None:
        self._gpu = gpu
        self._last: Optional[Reading] = None
        self._powered: Optional[Reading] = None  # the last one with a power, or the first of all
        self._millijoules: Optional[int] = 0
        self._integrated = 0.0
        self._seconds = 0.0
        self._parts = 0
        self._gap_s = 0.0
        self._problems: Dict[str, None] = {}

    def cut(self) -> None:
        """What was used between the reading before and the one behind is not counted."""
        self._last = self._powered = None

    def add(self, reading: Reading) -> None:
        """Count what was used since the reading before; readings are in order of time."""
        if reading.trouble:
            self._problems.setdefault(reading.trouble)
        if self._last is None:
            self._parts += 1
        else:
            self._seconds += reading.t - self._last.t
            self._count(self._last, reading)
        self._integrate(reading)
        self._last = reading

    def _count(self, last: Reading, reading: Reading) -> None:
        """Once a part of the energy is not known, the sum is not."""
        if last.millijoules is None or reading.millijoules is None:
            self._millijoules = None
        elif reading.millijoules < last.millijoules:
            self._millijoules = None
            self._problems.setdefault("the energy counter was reset")
        elif self._millijoules is not None:
            self._millijoules += reading.millijoules - last.millijoules

    def _integrate(self, reading: Reading) -> None:
        since = self._powered or reading
        seconds = reading.t - since.t
        self._gap_s = max(self._gap_s, seconds)
        self._powered = since if reading.watts is None else reading
        if since.watts is not None and reading.watts is not None:
            self._integrated += seconds * (since.watts + reading.watts) / 2

    def energy(self) -> GpuEnergy:
        """Up to the newest reading."""
        joules = self._millijoules / 1e3 if self._millijoules else None
        integrated = self._integrated or None
        problems = [*self._problems, *self._doubts(joules, integrated)]
        return GpuEnergy(self._gpu, joules, integrated, tuple(problems))

    def _doubts(self, joules: Optional[float], integrated: Optional[float]) -> List[str]:
        if self._parts == 0:
            return ["the measured window was never open"]
        doubts = []
        if self._seconds < self._parts * MIN_PART_S:
            parts = "%d parts of " % self._parts if self._parts > 1 else ""
            mean = self._seconds / self._parts
            doubts.append(
                "%s%.3g s: too short for a counter that moves every %g s (at least %g s)"
                % (parts, mean, COUNTER_UPDATE_S, MIN_PART_S)
            )
        if self._gap_s > MAX_GAP_S:
            doubts.append("no power reading for %.1f s (at most %g s)" % (self._gap_s, MAX_GAP_S))
        if joules is None:
            still = self._millijoules == 0
            doubts += ["the energy counter did not move"] if still else []
        elif integrated is None:
            doubts.append("no power readings to check the energy counter with")
        elif abs(integrated - joules) > MAX_DISAGREEMENT * joules:
            doubts.append(
                "the energy counter says %.6g J, integrated power %.6g J: more than %g %% apart"
                % (joules, integrated, 100 * MAX_DISAGREEMENT)
            )
        return doubts
