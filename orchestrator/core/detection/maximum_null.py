"""How large the best of all splits gets by chance: the null distribution of the maximum.

Ranks in random order do not depend on the noise, so that one table holds for every series.
``scripts/bench detection --null`` prints it: 400,000 random orders for each number of values, from
a fixed seed. Between its rows and columns p is interpolated, beyond the last column extrapolated:
log p falls with the square of the statistic, as the tail of a normal distribution does.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from itertools import pairwise

MIN_NIGHTS, MAX_NIGHTS = 20, 160
FEWEST_NEW, MOST_NEW = 3, 20  # one night is a spike, two may be; a change is found or not by then

LEVELS = (0.2, 0.1, 0.05, 0.02, 0.01, 5e-3, 2e-3, 1e-3, 5e-4, 2e-4, 1e-4)
# The statistic that chance exceeds with the probability of each level, by number of values.
CRITICAL: dict[int, tuple[float, ...]] = {
    20: (1.889, 2.184, 2.425, 2.679, 2.843, 2.951, 3.091, 3.203, 3.267, 3.370, 3.429),
    24: (1.935, 2.232, 2.477, 2.740, 2.901, 3.035, 3.212, 3.312, 3.412, 3.521, 3.585),
    30: (1.988, 2.288, 2.537, 2.811, 2.988, 3.135, 3.310, 3.427, 3.528, 3.651, 3.738),
    38: (2.042, 2.343, 2.596, 2.879, 3.060, 3.225, 3.414, 3.541, 3.662, 3.802, 3.893),
    48: (2.035, 2.340, 2.600, 2.891, 3.082, 3.256, 3.455, 3.594, 3.750, 3.914, 4.016),
    60: (2.024, 2.336, 2.599, 2.896, 3.096, 3.275, 3.488, 3.620, 3.761, 3.917, 4.026),
    80: (2.011, 2.326, 2.598, 2.905, 3.108, 3.290, 3.499, 3.645, 3.775, 3.923, 4.037),
    110: (2.000, 2.318, 2.592, 2.908, 3.119, 3.314, 3.557, 3.720, 3.867, 4.081, 4.195),
    160: (1.989, 2.312, 2.591, 2.911, 3.122, 3.330, 3.574, 3.741, 3.909, 4.113, 4.216),
}
_COUNTS = tuple(CRITICAL)


def most_new(count: int) -> int:
    """The largest number of new nights that is tried among ``count`` values."""
    return min(MOST_NEW, count // 2)


def p_value(statistic: float, count: int) -> float:
    """How often the best split of ``count`` values without a change reaches ``statistic``."""
    critical = _critical_values(count)
    squares = [0.0, *(value * value for value in critical)]
    logs = [0.0, *(math.log(level) for level in LEVELS)]
    square = statistic * statistic
    at = min(max(bisect_right(squares, square), 1), len(squares) - 1)
    slope = (logs[at] - logs[at - 1]) / (squares[at] - squares[at - 1])
    return min(1.0, math.exp(logs[at - 1] + slope * (square - squares[at - 1])))


def _critical_values(count: int) -> tuple[float, ...]:
    """The row of ``count``, between two rows by the logarithm of the count."""
    count = min(max(count, _COUNTS[0]), _COUNTS[-1])
    for low, high in pairwise(_COUNTS):
        if low <= count <= high:
            share = math.log(count / low) / math.log(high / low)
            pairs = zip(CRITICAL[low], CRITICAL[high], strict=True)
            return tuple(a + share * (b - a) for a, b in pairs)
    raise AssertionError(count)
