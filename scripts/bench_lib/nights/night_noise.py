"""Series of nights, quiet and with a change in them, made from seeds."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import pstdev

from bench_lib.base.bed import ROOT

HISTORIES = ROOT / "tests" / "golden" / "detection" / "histories.json"
SEED = 20261130
FAMILY = 50
HISTORY = 160  # quiet nights before anything is judged
QUIET_NIGHTS = 400

Noise = Callable[[random.Random, int], list[float]]


def white(source: random.Random, count: int) -> list[float]:
    return [source.gauss(0, 1) for _ in range(count)]


def autoregressive(source: random.Random, count: int, phi: float = 0.5) -> list[float]:
    values, step = [source.gauss(0, 1)], math.sqrt(1 - phi * phi)
    while len(values) < count:
        values.append(phi * values[-1] + step * source.gauss(0, 1))
    return values


def bimodal(source: random.Random, count: int) -> list[float]:
    """One night in seven a second mode, 2.7 sigma below the first; of variance 1."""
    raw = [
        (0.0 if source.random() > 1 / 7 else -2.7) + 0.4 * source.gauss(0, 1) for _ in range(count)
    ]
    spread = math.sqrt(2.7**2 * (1 / 7) * (6 / 7) + 0.16)
    return [(value + 2.7 / 7) / spread for value in raw]


BLOCK = 5  # nights


def resampled(histories: Sequence[Sequence[float]], block: int = BLOCK) -> Noise:
    """Blocks of real histories: what depends on the night before stays, real changes do not. The
    longer the block, the more of a real change is noise.
    """

    def noise(source: random.Random, count: int) -> list[float]:
        history = histories[source.randrange(len(histories))]
        values: list[float] = []
        while len(values) < count:
            start = source.randrange(len(history) - block)
            values += history[start : start + block]
        return values[:count]

    return noise


def real_histories(path: Path = HISTORIES) -> list[list[float]]:
    """Measured figures of one machine, each with mean 0 and standard deviation 1."""
    found = []
    for figure in json.loads(path.read_text())["figures"].values():
        middle, spread = sum(figure) / len(figure), pstdev(figure)
        found.append([(value - middle) / spread for value in figure])
    return found


def turned(histories: Sequence[Sequence[float]]) -> list[list[float]]:
    return [[-value for value in history] for history in histories]


def noises() -> dict[str, Noise]:
    """All series are such that a fall is for the worse. Real histories are times, whose bursts are
    slow: as they are, a fall goes away from the bursts; turned, as rates, into them.
    """
    return {
        "white": white,
        "AR(1), 0.5": autoregressive,
        "bimodal": bimodal,
        "real, resampled": resampled(real_histories()),
        "real, turned": resampled(turned(real_histories())),
    }


def more_correlated() -> dict[str, Noise]:
    """Under which only the false alarms of ours are counted."""
    return {
        "AR(1), 0.2": partial(autoregressive, phi=0.2),
        "AR(1), 0.7": partial(autoregressive, phi=0.7),
        "real, longer blocks": resampled(real_histories(), 2 * BLOCK),
        "real, turned, longer blocks": resampled(turned(real_histories()), 2 * BLOCK),
    }


def scaled(values: Sequence[float], cv: float = 0.01) -> list[float]:
    """A figure of 1000 with this coefficient of variation."""
    return [1000 * (1 + cv * value) for value in values]


@dataclass(frozen=True, slots=True)
class Shift:
    """A change to be found: within how many nights, in which share of cases. ``step``: relative
    change of every night since; ``drift``: of each night more; ``spike``: of the first night alone.
    """

    name: str
    within: int
    wanted: float | None = None
    step: float = 0.0
    drift: float = 0.0
    spike: float = 0.0

    def change(self, night: int) -> float:
        """Relative, on ``night`` since it began (from 1)."""
        return self.step + self.drift * night + (self.spike if night == 1 else 0.0)


SHIFTS = (
    Shift("1 % shift", 15, step=-0.01),
    Shift("2 % shift", 7, 0.80, step=-0.02),
    Shift("3 % shift", 5, step=-0.03),
    Shift("5 % shift", 3, 0.95, step=-0.05),
    Shift("drift of 0.3 % a night", 15, 0.95, drift=-0.003),
)
SPIKE = Shift("one spike of 10 %", 5, spike=-0.10)


def quiet_series(noise: Noise, name: str, family: int = 0) -> list[list[float]]:
    source = random.Random(f"{SEED} quiet {name}" + (f" {family}" if family else ""))
    return [scaled(noise(source, HISTORY + QUIET_NIGHTS)) for _ in range(FAMILY)]


def changed_series(noise: Noise, name: str, shift: Shift, trials: int) -> list[list[float]]:
    source = random.Random(f"{SEED} {shift.name} {name}")
    made = []
    for _ in range(trials):
        values = scaled(noise(source, HISTORY + shift.within))
        for night in range(1, shift.within + 1):
            values[HISTORY + night - 1] *= 1 + shift.change(night)
        made.append(values)
    return made
