"""Values over time: what their integral and mean are, and fewer points that show the same curve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

Point = tuple[float, float]  # (seconds, value); points are in order of time
Points = Sequence[Point]


def integral(points: Points) -> float:
    """By trapezoids, in units of the value times seconds; 0 for a single point."""
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))


def mean_over_time(points: Points) -> float:
    """Weighted by time; of points that lie at one moment their plain mean. Needs a point."""
    seconds = points[-1][0] - points[0][0]
    if seconds > 0:
        return integral(points) / seconds
    return sum(value for _, value in points) / len(points)


def rates(points: Points) -> tuple[Point, ...]:
    """What a counter gained per second up to each point. Where it fell back, because the driver was
    loaded anew, there is no rate.
    """
    return tuple(_rates(points))


def _rates(points: Points) -> Iterator[Point]:
    for (t0, before), (t1, after) in pairwise(points):
        if t1 > t0 and after >= before:
            yield t1, (after - before) / (t1 - t0)


def gained(points: Points) -> float | None:
    """What a counter gained from the first to the last point; None where it once fell back."""
    if not points or any(b[1] < a[1] for a, b in pairwise(points)):
        return None
    return points[-1][1] - points[0][1]


def thin_points(points: Points, most: int) -> tuple[Point, ...]:
    """At most ``most`` (4 or more) points that keep both ends, and the least and greatest value of
    each stretch, so that no peak is lost.
    """
    if len(points) <= most:
        return tuple(points)
    inner = points[1:-1]
    stretches = (most - 2) // 2
    edges = [len(inner) * i // stretches for i in range(stretches + 1)]
    kept = [point for a, b in pairwise(edges) for point in _extremes(inner[a:b])]
    return (points[0], *kept, points[-1])


def _extremes(stretch: Points) -> list[Point]:
    low = min(stretch, key=lambda point: point[1])
    high = max(stretch, key=lambda point: point[1])
    return [low] if low == high else sorted([low, high])
