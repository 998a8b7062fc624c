"""The table in ``orchestrator/core/detection/maximum_null.py``, computed again."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

from orchestrator.core.detection.maximum_null import (
    CRITICAL,
    FEWEST_NEW,
    LEVELS,
    most_new,
    split_weight,
)
from orchestrator.core.detection.one_sided import BLOCK_HANDICAP, block_deviate

from .night_noise import SEED

if TYPE_CHECKING:
    from numpy import ndarray
    from numpy.random import Generator

ORDERS, BATCH = 400_000, 20_000


def print_null_table() -> None:
    """One line for each number of values, as it stands in the program."""
    import numpy as np

    source = np.random.default_rng(SEED)
    for count in CRITICAL:
        maxima = np.concatenate([_maxima(count, source) for _ in range(ORDERS // BATCH)])
        cells = ", ".join(f"{np.quantile(maxima, 1 - level):.3f}" for level in LEVELS)
        print(f"    {count}: ({cells}),", flush=True)


def _maxima(count: int, source: Generator) -> ndarray:
    """The statistic of so many random orders: the last places are drawn one after the other."""
    import numpy as np

    normal = NormalDist()
    scores = np.array([normal.inv_cdf((rank + 0.625) / (count + 0.25)) for rank in range(count)])
    variance, rows = (scores**2).mean(), np.arange(BATCH)
    ranks = np.tile(np.arange(count), (BATCH, 1))
    total, largest, lowest = np.zeros(BATCH), np.zeros(BATCH), np.full(BATCH, count)
    for new in range(1, most_new(count) + 1):
        drawn = source.integers(new - 1, count, BATCH)
        rank = ranks[rows, drawn]
        ranks[rows, drawn] = ranks[rows, new - 1]
        total += scores[rank]
        lowest = np.minimum(lowest, rank)
        if new >= FEWEST_NEW:
            spread = np.sqrt(variance * new * (count - new) / (count - 1))
            largest = np.maximum(largest, split_weight(new) * total / spread)
            deviates = [block_deviate(count - low, new, count) for low in range(count)]
            block = split_weight(new) * np.array(deviates)[lowest] - BLOCK_HANDICAP
            largest = np.maximum(largest, block)
    return largest
