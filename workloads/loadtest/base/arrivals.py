"""When requests are sent: times from a seed, the same on every machine.

Every open schedule is one of unit rate (gaps with mean 1), stretched by the rate that is asked for.
The number of requests is fixed, and the gaps are scaled so that they fill the duration exactly: the
configured rate is met by every seed. For exponential gaps that is a Poisson process given its
number of arrivals; it is how `vllm bench serve` scales its gaps, too.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from random import Random

CONSTANT, POISSON, GAMMA = "constant", "poisson", "gamma"
# Loads without one rate that a server keeps up with or not.
UNSTEADY = frozenset({"ramp", "trace"})
# A schedule is held in memory, eight bytes an arrival.
MAX_ARRIVALS = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenLoad:
    """Requests at a rate, whatever the server does.

    ``rate``: requests per second at the start, ``final_rate`` at the end; linear between them.
    ``burstiness``: shape of the gamma distribution of the gaps; 1 = exponential, more = steadier.
    """

    spacing: str
    rate: float
    final_rate: float
    duration_s: float
    burstiness: float = 1.0

    @property
    def requests(self) -> int:
        """How many there are: the mean rate times the duration, at least one."""
        return max(1, round((self.rate + self.final_rate) / 2 * self.duration_s))


def arrival_times(load: OpenLoad, seed: int) -> array[float]:
    """Seconds from the start of the load, ascending, within its duration.

    Raises ``ValueError`` for rates or durations that are not finite and above 0, an unknown
    spacing, and more than ``MAX_ARRIVALS``.
    """
    amounts = (load.rate, load.final_rate, load.duration_s, load.burstiness)
    if not all(math.isfinite(amount) and amount > 0 for amount in amounts):
        raise ValueError(f"rates, duration and burstiness must be finite and above 0: {load}")
    if load.requests > MAX_ARRIVALS:
        raise ValueError(f"{load.requests:,} requests; at most {MAX_ARRIVALS:,}")
    positions = _unit_positions(load, Random(f"arrivals-{seed}"))
    return array("d", (_time_of(position, load) for position in positions))


def _unit_positions(load: OpenLoad, random: Random) -> list[float]:
    """Each arrival's position in (0, 1), as a part of all requests."""
    count = load.requests
    if load.spacing == CONSTANT:
        return [(number + 0.5) / count for number in range(count)]
    if load.spacing == POISSON:
        gaps = [random.expovariate(1.0) for _ in range(count + 1)]
    elif load.spacing == GAMMA:
        gaps = [random.gammavariate(load.burstiness, 1.0) for _ in range(count + 1)]
    else:
        raise ValueError(f"unknown spacing {load.spacing!r}")
    total = math.fsum(gaps) or 1.0
    return [min(1.0, position / total) for position in accumulate(gaps[:-1])]


def _time_of(position: float, load: OpenLoad) -> float:
    """When this part of all requests has been sent: the inverse of the integral of the rate."""
    slope = (load.final_rate - load.rate) / load.duration_s
    target = position * (load.rate + load.final_rate) / 2 * load.duration_s
    # The root of slope/2 t^2 + rate t = target, in the form that does not cancel at slope 0.
    root = math.sqrt(max(0.0, load.rate * load.rate + 2 * slope * target))
    return min(load.duration_s, 2 * target / (load.rate + root))


def sweep_rates(first: float, last: float, steps: int) -> list[float]:
    """``steps`` rates from ``first`` to ``last``, at equal ratios."""
    if steps < 2:
        return [first]
    ratio = (last / first) ** (1 / (steps - 1))
    return [first * ratio**step for step in range(steps - 1)] + [last]


def share_of(times: Sequence[float], member: int, members: int) -> array[float]:
    """What one of several senders sends: every ``members``-th arrival. All shares are the whole."""
    return array("d", times[member::members])


def share_of_count(count: int, member: int, members: int) -> int:
    """How many of ``count`` requests or streams are one sender's."""
    return count // members + (member < count % members)
