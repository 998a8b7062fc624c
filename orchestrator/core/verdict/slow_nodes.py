"""A node that holds the others up: whose ranks take longer for their own part of a step. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from statistics import median

# What workloads report for each node, as ``own_step_s.NODE``: seconds of a step without waiting for
# other ranks.
OWN_STEP = "own_step_s"
# From a tenth on, a training counts as held up by slow nodes (arXiv 2505.05713, which finds that in
# 42.5 % of the jobs of a large cluster).
SLOW = 1.1


def describe_slow_nodes(figures: Mapping[str, float | None]) -> Iterator[str]:
    """A sentence for each node that is slow beside the median of the others, slowest first: how
    long it takes, by how much that is longer, and from when on it counts. ``figures`` by name.
    """
    seconds = {
        name.removeprefix(f"{OWN_STEP}."): value
        for name, value in figures.items()
        if name.startswith(f"{OWN_STEP}.") and value is not None and math.isfinite(value)
    }
    for node in sorted(seconds, key=lambda name: -seconds[name]):
        others = [value for name, value in seconds.items() if name != node]
        usual = median(others) if others else 0.0
        if usual > 0 and seconds[node] >= SLOW * usual:
            yield (
                f"{node} is slow: its own part of a step takes {seconds[node]:.3g} s, "
                f"{seconds[node] / usual:.2f} times as long as on the other nodes (median "
                f"{usual:.3g} s); a node counts as slow from {SLOW:g} on"
            )
