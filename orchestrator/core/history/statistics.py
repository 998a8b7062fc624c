"""Medians, noise, intervals and corrections of comparisons: few samples, no distribution assumed
where that can be avoided. Pure and deterministic: no resampling, so that a verdict repeats.

Sources: Hollander, Wolfe and Chicken, Nonparametric Statistical Methods, 3rd ed. 2014, sections 4.1
to 4.3 (rank sum test, the estimator and the interval that belong to it, after Moses 1965);
Rousseeuw and Croux, JASA 88 (1993) 1273-1283, with the factors for few values of Croux and
Rousseeuw, COMPSTAT 1992 (the scale Qn); Abramowitz and Stegun 26.7.3 and 26.7.4 (Student's
distribution with whole degrees of freedom); Holm, Scand. J. Stat. 6 (1979) 65-70.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist, median

CONFIDENCE = 0.95
QN_TO_SIGMA = 2.2219  # for normal noise
QN_EFFICIENCY = 0.82  # of n values, Qn knows as much as a standard deviation of 0.82 n
QN_SMALL = {8: 0.669, 9: 0.872}  # factors for few values
MIN_NOISE_RUNS = 8  # fewer do not tell noise from luck
MAX_EXACT = 400  # n * m above which the rank sum is normal to three digits


@dataclass(frozen=True, slots=True)
class Noise:
    """How much a figure varies between runs of one key: ``sigma`` of its logarithm, that is
    relative, from ``runs`` runs.
    """

    sigma: float
    runs: int

    @property
    def freedom(self) -> int:
        """Degrees of freedom of ``sigma``."""
        return max(1, round(QN_EFFICIENCY * (self.runs - 1)))


@dataclass(frozen=True, slots=True)
class RatioEstimate:
    """b over a: ``low`` to ``high`` holds the ratio with 95 % confidence; None where nothing is
    known of the noise. ``p``: how likely such a difference is by chance, None likewise. ``method``
    in words.
    """

    ratio: float
    low: float | None
    high: float | None
    p: float | None
    method: str


def observed_noise(values: Sequence[float]) -> Noise | None:
    """Of one figure over runs of one key; None from fewer than eight, or if some are not above 0.

    By Qn, a quantile of the distances between all pairs: half of the runs may be spikes.
    """
    if len(values) < MIN_NOISE_RUNS or min(values) <= 0:
        return None
    logs = sorted(math.log(value) for value in values)
    n, half = len(logs), len(logs) // 2 + 1
    distances = sorted(logs[j] - logs[i] for i in range(n) for j in range(i + 1, n))
    factor = QN_SMALL.get(n, n / (n + (1.4 if n % 2 else 3.8)))
    return Noise(QN_TO_SIGMA * factor * distances[math.comb(half, 2) - 1], n)


def estimate_ratio(
    a: Sequence[float], b: Sequence[float], noise: Noise | None
) -> RatioEstimate | None:
    """b over a, all values above 0; None without values, or where a ratio means nothing.

    With enough values on both sides by ranks alone, otherwise from ``noise``.
    """
    if not a or not b or min(*a, *b) <= 0:
        return None
    exact = _rank_interval(a, b)
    if exact is not None:
        return exact
    ratio = median(b) / median(a)
    if noise is None:
        words = f"{len(a)} against {len(b)}; noise unknown, fewer than {MIN_NOISE_RUNS} runs"
        return RatioEstimate(ratio, None, None, None, words)
    return _noise_interval(ratio, len(a), len(b), noise)


def _noise_interval(ratio: float, n: int, m: int, noise: Noise) -> RatioEstimate:
    """Student's interval for the difference of two means of logarithms whose sigma is known from
    other runs.
    """
    method = f"noise of {noise.runs} runs, Student's t"
    error = noise.sigma * math.sqrt(1 / n + 1 / m)
    if error == 0:
        return RatioEstimate(ratio, ratio, ratio, 1.0 if ratio == 1 else 0.0, method)
    reach = student_quantile((1 + CONFIDENCE) / 2, noise.freedom) * error
    p = 2 * (1 - student_cdf(abs(math.log(ratio)) / error, noise.freedom))
    # exp of a huge exponent: nothing is known then, and no float either.
    reach = min(reach, 50.0)
    return RatioEstimate(ratio, ratio * math.exp(-reach), ratio * math.exp(reach), p, method)


def _rank_interval(a: Sequence[float], b: Sequence[float]) -> RatioEstimate | None:
    """Median of all ratios with the interval of the rank sum test; None where so few values can
    never reach 95 %.
    """
    n, m = len(a), len(b)
    cut = _critical(n, m)
    if cut is None:
        return None
    ratios = sorted(later / earlier for earlier in a for later in b)
    above = sum((later > earlier) + 0.5 * (later == earlier) for earlier in a for later in b)
    p = min(1.0, 2 * _lower_tail(math.floor(min(above, n * m - above)), n, m))
    words = "exact rank sum" if n * m <= MAX_EXACT else "rank sum"
    return RatioEstimate(
        median(ratios), ratios[cut - 1], ratios[len(ratios) - cut], p, f"{words}, {n} and {m} runs"
    )


@lru_cache(maxsize=256)
def _critical(n: int, m: int) -> int | None:
    """The largest c with P(U < c) <= 2.5 %: the c-th smallest ratio bounds the interval."""
    cut = 0
    while cut < n * m // 2 and _lower_tail(cut, n, m) <= (1 - CONFIDENCE) / 2:
        cut += 1
    return cut or None


def _lower_tail(u: int, n: int, m: int) -> float:
    """P(U <= u) of the rank sum statistic without a difference."""
    if n * m > MAX_EXACT:
        spread = math.sqrt(n * m * (n + m + 1) / 12)
        return NormalDist().cdf((u + 0.5 - n * m / 2) / spread)
    ways = _arrangements(n, m)
    return sum(ways[: u + 1]) / math.comb(n + m, n)


@lru_cache(maxsize=256)
def _arrangements(n: int, m: int) -> tuple[int, ...]:
    """How many arrangements of n and m values have U = 0, 1, ... n m: the coefficients of the
    Gaussian binomial.
    """
    counts = [1] + [0] * (n * m)
    for k in range(1, n + 1):
        for u in range(n * m, m + k - 1, -1):  # times (1 - q^(m+k))
            counts[u] -= counts[u - m - k]
        for u in range(k, n * m + 1):  # over (1 - q^k)
            counts[u] += counts[u - k]
    return tuple(counts)


def student_cdf(t: float, freedom: int) -> float:
    """P(T <= t) with ``freedom`` degrees of freedom, 1 or more."""
    angle = math.atan2(t, math.sqrt(freedom))
    squared = math.cos(angle) ** 2
    odd = freedom % 2
    term, total = 1.0, 0.0
    for k in range(odd + 2 if odd else 2, freedom + 1, 2):
        total += term
        term *= squared * (k - 1) / k
    if not odd:
        return 0.5 + 0.5 * math.sin(angle) * total
    body = angle + math.sin(angle) * math.cos(angle) * total
    return 0.5 + body / math.pi


def student_quantile(probability: float, freedom: int) -> float:
    """The t with P(T <= t) = ``probability``, between 0.5 and 1."""
    low, high = 0.0, 2.0
    while student_cdf(high, freedom) < probability:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if student_cdf(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return high


def holm_adjust(p_values: Sequence[float]) -> list[float]:
    """Each p as it is after the correction for their number: compare with the same 5 %."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
