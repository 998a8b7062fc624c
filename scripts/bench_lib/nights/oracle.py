"""What could be found at best: a rule that knows everything of the noise and the change but when.

It is told the law of the noise with all parameters, the side, size and form of the change. Each
night it takes, over the nights on which the change may have begun, the largest likelihood ratio of
change to none (Page's CUSUM; no rule finds such a change sooner at equal false alarms in the worst
case: Moustakides 1986, for nights that do not depend on each other). No real rule is told so much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from .night_noise import FAMILY, HISTORY, Shift, changed_series, noises, quiet_series

if TYPE_CHECKING:
    from numpy import ndarray

BEGINNINGS = 20  # so many nights back a change may have begun
PAUSE = 20  # nights after an alarm on which ours, too, only collects
QUIET_FAMILIES = 4
AR_PHI = 0.5
LOW_MODE, LOW_SHARE, MODE_WIDTH = -2.7, 1 / 7, 0.4  # as in ``night_noise.bimodal``


def oracle_share(name: str, shift: Shift, trials: int, rate: float) -> float | None:
    """Share of the changes found at ``rate`` alarms a night over a family; None where the law of
    the noise is not known: that of real histories.
    """
    law = LAWS.get(name)
    if law is None:
        return None
    noise = noises()[name]
    quiet = [v for n in range(QUIET_FAMILIES) for v in quiet_series(noise, name, n)]
    threshold = _threshold(_scores(quiet, law, shift), rate)
    found = _scores(changed_series(noise, name, shift, trials), law, shift)
    return float((found.max(axis=1) > threshold).mean())


def _independent(density: Callable[[ndarray], ndarray]) -> Callable[..., ndarray]:
    def ratio(now: ndarray, _before: ndarray, change: float, _earlier: float) -> ndarray:
        found: ndarray = density(now - change) - density(now)
        return found

    return ratio


def _normal(values: ndarray) -> ndarray:
    log: ndarray = -values * values / 2
    return log


def _bimodal(values: ndarray) -> ndarray:
    import numpy as np

    spread = math.sqrt(LOW_MODE**2 * LOW_SHARE * (1 - LOW_SHARE) + MODE_WIDTH**2)
    raw = values * spread + LOW_MODE * LOW_SHARE
    modes = [
        share * np.exp(-(((raw - at) / MODE_WIDTH) ** 2) / 2)
        for at, share in ((0.0, 1 - LOW_SHARE), (LOW_MODE, LOW_SHARE))
    ]
    log: ndarray = np.log(modes[0] + modes[1] + 1e-300)
    return log


def _autoregressive(now: ndarray, before: ndarray, change: float, earlier: float) -> ndarray:
    surprise, adds = now - AR_PHI * before, change - AR_PHI * earlier
    ratio: ndarray = (adds * surprise - adds * adds / 2) / (1 - AR_PHI * AR_PHI)
    return ratio


LAWS: dict[str, Callable[..., ndarray]] = {
    "white": _independent(_normal),
    "AR(1), 0.5": _autoregressive,
    "bimodal": _independent(_bimodal),
}


def _scores(several: list[list[float]], law: Callable[..., ndarray], shift: Shift) -> ndarray:
    """The largest log likelihood ratio over all beginnings, of each series and judged night."""
    import numpy as np

    values = (np.array(several) / 1000 - 1) * 100  # in standard deviations, at a CV of 1 %
    nights = values.shape[1] - HISTORY
    best = np.full((len(several), nights), -np.inf)
    for age in range(1, BEGINNINGS + 1):
        total = np.zeros_like(best)
        for night in range(1, age + 1):
            first = HISTORY - (age - night)
            now, before = values[:, first:][:, :nights], values[:, first - 1 :][:, :nights]
            change, earlier = 100 * shift.change(night), 100 * shift.change(night - 1)
            total += law(now, before, change, earlier if night > 1 else 0.0)
        best = np.maximum(best, total)
    return best


def _threshold(scores: ndarray, rate: float) -> float:
    low, high = 0.0, 40.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if _alarm_rate(scores, middle) > rate else (low, middle)
    return high


def _alarm_rate(scores: ndarray, threshold: float) -> float:
    """Alarms a night over a family; after one, nothing for ``PAUSE`` nights."""
    alarms = 0
    for row in scores > threshold:
        next_one = 0
        for night in row.nonzero()[0]:
            if night >= next_one:
                alarms, next_one = alarms + 1, int(night) + PAUSE
    return FAMILY * alarms / scores.size
