"""Searching for the shape of a matrix product that runs fastest, in a bounded number of trials."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

Shape = tuple[int, int, int]
Rate = Callable[[Shape], float]

NEIGHBOURS_OF = 3
# Fast on several generations, as published searches found, beside the grid.
KNOWN = ((2048, 2048, 13312), (1024, 10240, 5120), (6144, 17920, 2816), (4096, 16384, 5120))


def grid(edges: Sequence[int]) -> list[Shape]:
    """Every shape whose edges are among ``edges``, the smallest first."""
    found = list(itertools.product(edges, edges, edges))
    return sorted(found, key=lambda shape: (_volume(shape), shape))


def neighbours(shape: Shape, step: int) -> Iterator[Shape]:
    """Shapes that differ in one edge by ``step``; none has an edge below ``step``."""
    for axis in range(3):
        for change in (-step, step):
            edges = list(shape)
            edges[axis] += change
            if edges[axis] >= step:
                yield (edges[0], edges[1], edges[2])


def search(
    seeds: Iterable[Shape], rate: Rate, *, step: int, trials: int, go_on: Callable[[], bool]
) -> dict[Shape, float]:
    """Rates of at most ``trials`` shapes: the seeds, then neighbours of the best so far.

    Stops when ``go_on`` says no, but not before one shape was tried, or when the neighbours of
    the best shapes are all known.
    """
    found: dict[Shape, float] = {}
    waiting = list(dict.fromkeys(seeds))
    while len(found) < trials and (go_on() or not found):
        if not waiting:
            waiting = _around(best(found, NEIGHBOURS_OF), step, found)
            if not waiting:
                break
        shape = waiting.pop(0)
        if shape not in found:
            found[shape] = rate(shape)
    return found


def best(found: dict[Shape, float], count: int) -> list[Shape]:
    """The fastest shapes, fastest first."""
    return sorted(found, key=lambda shape: (-found[shape], shape))[:count]


def _around(centres: Sequence[Shape], step: int, known: dict[Shape, float]) -> list[Shape]:
    around = itertools.chain.from_iterable(neighbours(shape, step) for shape in centres)
    return [shape for shape in dict.fromkeys(around) if shape not in known]


def _volume(shape: Shape) -> int:
    m, n, k = shape
    return m * n * k
