"""How large the best of all splits gets by chance: the null distribution of the maximum.

Ranks in random order do not depend on the noise, so that one table holds for every series, for
changes to one side. ``scripts/bench detection --null`` prints it: 400,000 random orders for each
number of values, from a fixed seed. Between its rows and columns p is interpolated, beyond the last
column extrapolated: log p falls with the square of the statistic, as the tail of a normal
distribution does.
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
    20: (1.487, 1.849, 2.123, 2.420, 2.610, 2.734, 2.887, 3.013, 3.076, 3.163, 3.232),
    24: (1.529, 1.889, 2.176, 2.473, 2.664, 2.819, 2.985, 3.081, 3.185, 3.272, 3.395),
    30: (1.515, 1.874, 2.161, 2.476, 2.666, 2.841, 3.028, 3.139, 3.260, 3.401, 3.464),
    38: (1.494, 1.862, 2.164, 2.481, 2.684, 2.867, 3.076, 3.207, 3.316, 3.491, 3.601),
    48: (1.495, 1.868, 2.159, 2.490, 2.698, 2.884, 3.113, 3.252, 3.391, 3.518, 3.632),
    60: (1.491, 1.858, 2.163, 2.499, 2.720, 2.918, 3.151, 3.291, 3.423, 3.580, 3.639),
    80: (1.482, 1.860, 2.162, 2.500, 2.718, 2.916, 3.150, 3.303, 3.444, 3.602, 3.735),
    110: (1.479, 1.854, 2.166, 2.508, 2.727, 2.936, 3.181, 3.356, 3.492, 3.642, 3.757),
    160: (1.477, 1.854, 2.162, 2.507, 2.735, 2.945, 3.185, 3.358, 3.517, 3.708, 3.852),
}
_COUNTS = tuple(CRITICAL)


def most_new(count: int) -> int:
    """The largest number of new nights that is tried among ``count`` values."""
    return min(MOST_NEW, count // 2)


def split_weight(new: int) -> float:
    """By what the statistic of a split with ``new`` new nights is multiplied; 1 for the fewest."""
    return float((FEWEST_NEW / new) ** WEIGHT_EXPONENT)


def p_value(statistic: float, count: int) -> float:
    """How often the best split of ``count`` values without a change reaches ``statistic``, to the
    one side that was asked.
    """
    critical = _critical_values(count)
    squares = [0.0, *(value * value for value in critical)]
    logs = [0.0, *(math.log(level) for level in LEVELS)]
    square = max(statistic, 0.0) ** 2
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
