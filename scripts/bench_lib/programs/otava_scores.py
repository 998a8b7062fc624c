"""Run under an environment with apache-otava: how sure it is of a change, night for night.

Standard input: ``{"series": [[value, ...], ...], "history": N, "recent": K, "enough": S}``.
Standard output: of each series, of each night after N, -log p of the surest change point among the
K latest nights, 0 where there is none; a series ends with the first score above S. Otava's
defaults: window 50, p at most 0.001, any magnitude.
"""

from __future__ import annotations

import json
import math
import sys

from otava.analysis import compute_change_points

WINDOW, P = 50, 0.001
KEPT = 2 * WINDOW  # a split that is news is tested within the last window
TINY = 1e-300


def score(values: list[float], recent: int) -> float:
    kept = values[-KEPT:]
    points, _ = compute_change_points(kept, window_len=WINDOW, max_pvalue=P, min_magnitude=0.0)
    near = [p.stats.pvalue for p in points if p.index >= len(kept) - recent]
    return max((-math.log(max(float(p), TINY)) for p in near), default=0.0)


def scores_of(values: list[float], history: int, recent: int, enough: float) -> list[float]:
    row: list[float] = []
    for night in range(history + 1, len(values) + 1):
        row.append(score(values[:night], recent))
        if row[-1] > enough:
            break
    return row


def main() -> None:
    asked = json.load(sys.stdin)
    options = asked["history"], asked["recent"], asked["enough"]
    json.dump([scores_of(values, *options) for values in asked["series"]], sys.stdout)


main()
