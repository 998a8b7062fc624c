"""Coefficients from measured points, with what is known of them before as a prior.

The most likely logarithms of the coefficients, by Gauss and Newton's method with Levenberg's
damping: squares of log(measured / predicted) by the points' spread, and of each coefficient's
distance from its prior by the prior's width. Their covariance is Laplace's: the inverse of what
curves around the optimum, and how coefficients of the host vary between machines. Leave-one-out
errors are those of fits without the point.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from orchestrator.core.costs.estimate import Family, Interval, Term, estimate, weigh
from orchestrator.core.costs.tables import Prior

STEPS = 60
SETTLED = 1e-7
LEAST_SPREAD = 0.005  # of a measurement that is repeated
ROUNDS = 4  # spread and coefficients depend on each other

Matrix = list[list[float]]


@dataclass(frozen=True, slots=True)
class MeasuredPoint:
    """Terms of a configuration, and the figure that was measured of it."""

    terms: tuple[Term, ...]
    measured: float
    cap: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What is predicted of a figure, and what was measured."""

    predicted: Interval
    measured: float

    @property
    def error(self) -> float:
        """Predicted by measured - 1."""
        return self.predicted.value / self.measured - 1

    @property
    def inside(self) -> bool:
        """Whether the measured value lies in the interval."""
        return self.predicted.low <= self.measured <= self.predicted.high


class MeanErrors(NamedTuple):
    """Mean absolute percentage error and bias as fractions, and the share inside of intervals."""

    mape: float
    bias: float
    inside: float


def mean_errors(found: Sequence[tuple[float, bool]]) -> MeanErrors:
    """Of at least one prediction: its error, and whether the measured value was inside."""
    errors = [error for error, _ in found]
    return MeanErrors(
        mape=fmean(map(abs, errors)),
        bias=fmean(errors),
        inside=fmean(inside for _, inside in found),
    )


def fit(priors: Sequence[Prior], points: Sequence[MeasuredPoint], spread: float) -> Family:
    """The family that explains ``points`` best; ``spread`` is what is assumed of theirs. Raises
    ``ValueError`` without points.
    """
    if not points:
        raise ValueError("nothing was measured")
    logs = [math.log(prior.value) for prior in priors]
    curved: Matrix = []
    assumed = spread
    for _ in range(ROUNDS):
        logs, curved = _search(priors, points, logs, spread)
        spread = _spread(priors, points, logs, curved, assumed)
    names = tuple(prior.name for prior in priors)
    covariance = inverse(curved)
    for place, prior in enumerate(priors):
        covariance[place][place] += math.log(prior.varies) ** 2
    return Family(
        names=names,
        logs=tuple(logs),
        covariance=tuple(map(tuple, covariance)),
        spread=spread,
        points=len(points),
    )


def leave_one_out(
    priors: Sequence[Prior], points: Sequence[MeasuredPoint], spread: float
) -> Iterator[Compared]:
    """Each point as predicted by a fit of all others; none where there are fewer than two."""
    for index, point in enumerate(points if len(points) > 1 else ()):
        others = [other for place, other in enumerate(points) if place != index]
        family = fit(priors, others, spread)
        predicted = estimate(family, point.terms, point.cap)
        yield Compared(predicted=predicted, measured=point.measured)


def _search(
    priors: Sequence[Prior], points: Sequence[MeasuredPoint], logs: list[float], spread: float
) -> tuple[list[float], Matrix]:
    """The logarithms at the optimum, and the curvature there."""
    damping, cost = 1e-3, _cost(priors, points, logs, spread)
    for _ in range(STEPS):
        gradient, curved = _curvature(priors, points, logs, spread)
        damped = [
            [value * (1 + damping * (row == column)) for column, value in enumerate(values)]
            for row, values in enumerate(curved)
        ]
        step = solved(damped, gradient)
        trial = [log + change for log, change in zip(logs, step, strict=True)]
        better = _cost(priors, points, trial, spread)
        if better <= cost:
            logs, cost, damping = trial, better, damping / 3
            if max(map(abs, step)) < SETTLED:
                break
        else:
            damping *= 5
    return logs, _curvature(priors, points, logs, spread)[1]


def _cost(
    priors: Sequence[Prior], points: Sequence[MeasuredPoint], logs: Sequence[float], spread: float
) -> float:
    apart = sum((_apart(priors, point, logs)[0] / spread) ** 2 for point in points)
    return apart + sum(
        ((log - math.log(prior.value)) / math.log(prior.factor)) ** 2
        for prior, log in zip(priors, logs, strict=True)
    )


def _apart(
    priors: Sequence[Prior], point: MeasuredPoint, logs: Sequence[float]
) -> tuple[float, tuple[float, ...]]:
    """log(measured / predicted), and the slopes of the prediction."""
    found = weigh([prior.name for prior in priors], logs, point.terms, point.cap)
    return math.log(point.measured / found.value), found.slopes


def _curvature(
    priors: Sequence[Prior], points: Sequence[MeasuredPoint], logs: Sequence[float], spread: float
) -> tuple[list[float], Matrix]:
    """Downhill direction and Gauss-Newton's curvature of half the cost."""
    size = len(priors)
    widths = [math.log(prior.factor) ** 2 for prior in priors]
    pull = [(math.log(p.value) - log) / w for p, log, w in zip(priors, logs, widths, strict=True)]
    curved = [[1 / widths[i] if i == j else 0.0 for j in range(size)] for i in range(size)]
    for point in points:
        apart, slopes = _apart(priors, point, logs)
        for i, slope in enumerate(slopes):
            if slope:
                pull[i] += slope * apart / spread**2
                for j, other in enumerate(slopes):
                    curved[i][j] += slope * other / spread**2
    return pull, curved


def _spread(
    priors: Sequence[Prior],
    points: Sequence[MeasuredPoint],
    logs: Sequence[float],
    curved: Matrix,
    assumed: float,
) -> float:
    """Of the points around the fit, with as many degrees of freedom less as they determine."""
    squares = sum(_apart(priors, point, logs)[0] ** 2 for point in points)
    covariance = inverse(curved)
    used = sum(1 - covariance[i][i] / math.log(prior.factor) ** 2 for i, prior in enumerate(priors))
    freedom = max(1.0, len(points) - used)
    # Few points say little about their spread: what was assumed counts like one of them.
    return max(LEAST_SPREAD, math.sqrt((squares + assumed**2) / (freedom + 1)))


def solved(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """x of ``matrix`` x = ``right``, by elimination with pivots. Raises ``ZeroDivisionError`` for a
    singular matrix.
    """
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for column in range(size):
        pivot = max(range(column, size), key=lambda row: abs(rows[row][column]))
        rows[column], rows[pivot] = rows[pivot], rows[column]
        head = rows[column]
        rows[column] = [value / head[column] for value in head]
        for row in range(size):
            if row != column and rows[row][column]:
                times = rows[row][column]
                rows[row] = [v - times * h for v, h in zip(rows[row], rows[column], strict=True)]
    return [row[size] for row in rows]


def inverse(matrix: Matrix) -> Matrix:
    """Of a symmetric positive matrix."""
    size = len(matrix)
    columns = [
        solved(matrix, [1.0 if row == column else 0.0 for row in range(size)])
        for column in range(size)
    ]
    return [[columns[column][row] for column in range(size)] for row in range(size)]
