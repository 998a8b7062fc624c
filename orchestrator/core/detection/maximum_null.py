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
FEWEST_NEW, MOST_NEW = 3, 12  # one night is a spike, two may be; a change is found or not by then
# Of the error budget, splits of many new nights get less: what they find, fewer nights have found,
# and correlation that is thought too small shows in long sums.
WEIGHT_EXPONENT = 0.05

LEVELS = (0.2, 0.1, 0.05, 0.02, 0.01, 5e-3, 2e-3, 1e-3, 5e-4, 2e-4, 1e-4)
# The statistic that chance exceeds with the probability of each level, by number of values.
CRITICAL: dict[int, tuple[float, ...]] = {
    20: (1.826, 2.112, 2.337, 2.595, 2.734, 2.860, 2.996, 3.065, 3.131, 3.190, 3.250),
    24: (1.863, 2.152, 2.390, 2.645, 2.802, 2.947, 3.081, 3.178, 3.249, 3.348, 3.395),
    30: (1.847, 2.143, 2.384, 2.653, 2.831, 2.980, 3.135, 3.234, 3.330, 3.418, 3.502),
    38: (1.834, 2.138, 2.393, 2.671, 2.848, 3.021, 3.195, 3.299, 3.409, 3.549, 3.635),
    48: (1.826, 2.131, 2.393, 2.679, 2.873, 3.042, 3.234, 3.367, 3.453, 3.596, 3.698),
    60: (1.816, 2.129, 2.392, 2.692, 2.891, 3.066, 3.267, 3.412, 3.542, 3.634, 3.740),
    80: (1.811, 2.127, 2.393, 2.694, 2.895, 3.074, 3.291, 3.435, 3.550, 3.716, 3.821),
    110: (1.806, 2.123, 2.392, 2.698, 2.910, 3.093, 3.324, 3.475, 3.607, 3.776, 3.889),
    160: (1.800, 2.119, 2.395, 2.709, 2.921, 3.108, 3.342, 3.506, 3.670, 3.844, 3.936),
}
_COUNTS = tuple(CRITICAL)


def most_new(count: int) -> int:
    """The largest number of new nights that is tried among ``count`` values."""
    return min(MOST_NEW, count // 2)


def split_weight(new: int) -> float:
    """By what the statistic of a split with ``new`` new nights is multiplied; 1 for the fewest."""
    return float((FEWEST_NEW / new) ** WEIGHT_EXPONENT)


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
