"""Detection over nights: false alarms and power, beside Apache Otava and the naive rule.

Series are made from seeds; a change is injected into each; all three rules see the same values, one
night after the other, as they would in use. Ours is what the program runs (``judge_night`` over 50
series, ``find_split`` for one). Otava runs with its defaults in a virtual environment of its own.
A night on which a rule flags what it did not flag the night before raises an alarm.
"""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median, pstdev

from .bed import cores
from .errors import BenchError
from .report import table

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))
HISTORIES = ROOT / "tests" / "golden" / "detection" / "histories.json"

from orchestrator.core.detection.night_series import (  # noqa: E402 - from this checkout
    KnownChange,
    NightFigure,
    NightSeries,
)
from orchestrator.core.detection.night_verdict import (  # noqa: E402
    NIGHT_BUDGET,
    judge_night,
    known_changes,
)
from orchestrator.core.detection.split_scan import find_split  # noqa: E402
from orchestrator.core.model.workload import Direction  # noqa: E402

OTAVA = "apache-otava==0.8.0"
OTAVA_PROGRAM = Path(__file__).parent / "programs" / "otava_scores.py"
SEED = 20261130
FAMILY = 50
PROMISED = 1 / 30
HISTORY = 160  # quiet nights before anything is judged
RECENT = 20  # a change point of Otava counts as news if it lies this near
NAIVE_NIGHTS, NAIVE_SHARE = 10, 0.05
QUIET_NIGHTS, OTAVA_NIGHTS = 400, 24
QUIET_FAMILIES = 4  # of ours, as it runs: 1,600 nights
SPIKES_ALLOWED = 0.01  # what quiet series raise in as many nights
TRIALS, OTAVA_TRIALS = 400, 40  # Otava takes a hundred times as long

Noise = Callable[[random.Random, int], list[float]]
Scores = list[list[float]]  # of each series, of each night: the larger, the surer


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


def noises() -> dict[str, Noise]:
    return {
        "white": white,
        "AR(1), 0.5": autoregressive,
        "bimodal": bimodal,
        "real, resampled": resampled(real_histories()),
    }


def more_correlated() -> dict[str, Noise]:
    """Under which only the false alarms of ours are counted."""
    return {
        "AR(1), 0.2": partial(autoregressive, phi=0.2),
        "AR(1), 0.7": partial(autoregressive, phi=0.7),
        "real, longer blocks": resampled(real_histories(), 2 * BLOCK),
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


def our_scores(several: Sequence[Sequence[float]]) -> Scores:
    """-log p of the best split, night for night."""
    scores = []
    for values in several:
        row = []
        for night in range(HISTORY + 1, len(values) + 1):
            split = find_split(values[:night])
            assert split is not None
            row.append(-math.log(split.p_value))
        scores.append(row)
    return scores


def naive_scores(several: Sequence[Sequence[float]]) -> Scores:
    """How far tonight lies off the median of the ten nights before, either way."""
    return [
        [
            abs(values[night] / median(values[night - NAIVE_NIGHTS : night]) - 1)
            for night in range(HISTORY, len(values))
        ]
        for values in several
    ]


def otava_scores(python: Path, several: Sequence[Sequence[float]], enough: float = 1e9) -> Scores:
    """-log p of its surest change point among the latest nights; 0 without one. A series ends with
    the first score above ``enough``.
    """
    asked = json.dumps({"series": several, "history": HISTORY, "recent": RECENT, "enough": enough})
    done = subprocess.run(
        [str(python), str(OTAVA_PROGRAM)],
        input=asked,
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    if done.returncode:
        raise BenchError(f"Otava ended with {done.returncode}: {done.stderr[-800:]}")
    scores: Scores = json.loads(done.stdout)
    return scores


def otava_environment(scratch: Path) -> Path:
    """The Python of a new virtual environment with Otava in it."""
    venv = scratch / "otava"
    python = venv / "bin" / "python"
    for argv in (
        [sys.executable, "-m", "venv", str(venv)],
        [str(python), "-m", "pip", "install", "--quiet", OTAVA],
    ):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=900, check=False)
        if done.returncode:
            raise BenchError(f"{' '.join(argv[1:])}: {done.stderr[-800:]}")
    return python


def alarm_rate(scores: Scores, threshold: float) -> float:
    """New alarms of a night over a whole family of series."""
    nights = sum(len(row) - 1 for row in scores)
    alarms = sum(
        tonight > threshold >= before for row in scores for before, tonight in pairwise(row)
    )
    return FAMILY * alarms / nights


def threshold_at(scores: Scores, rate: float) -> float:
    """The lowest threshold with at most this rate of alarms, as every higher one has: far below it
    a rule that alarms all the time raises nothing new.
    """
    lowest = math.inf
    for threshold in sorted({score for row in scores for score in row}, reverse=True):
        if alarm_rate(scores, threshold) > rate:
            break
        lowest = threshold
    return lowest


def found_share(scores: Scores, threshold: float) -> float:
    return sum(any(score > threshold for score in row) for row in scores) / len(scores)


def judged_alarm_rate(several: Sequence[Sequence[float]]) -> float:
    """Nights with a new change among all nights, by what the program runs: Holm over a family."""
    names = [f"{number:06d}" for number in range(len(several[0]))]
    series = [
        NightSeries(
            name=f"figure {number}",
            direction=Direction.HIGHER,
            nights=tuple(
                NightFigure(night=night, value=value)
                for night, value in zip(names, values, strict=True)
            ),
        )
        for number, values in enumerate(several)
    ]
    known: list[KnownChange] = []
    alarms = 0
    for night in names[HISTORY:]:
        new = known_changes(judge_night(series, night, known=known))
        known += new
        alarms += bool(new)
    return alarms / len(names[HISTORY:])


def measure_quiet(name: str) -> float:
    """Nights with an alarm of ours, of several families under one noise."""
    noise = {**noises(), **more_correlated()}[name]
    rates = [judged_alarm_rate(quiet_series(noise, name, n)) for n in range(QUIET_FAMILIES)]
    return sum(rates) / len(rates)


@dataclass(frozen=True, slots=True)
class Power:
    """Shares found of one change under one noise: ours as it runs, the others as they are, and ours
    with its threshold lowered until it raises as many false alarms as each of them.
    """

    noise: str
    shift: Shift
    ours: float
    otava: float
    ours_as_otava: float
    naive: float
    ours_as_naive: float

    @property
    def ahead(self) -> bool:
        return self.ours_as_otava >= self.otava and self.ours_as_naive >= self.naive


@dataclass(frozen=True, slots=True)
class NoiseResult:
    """What was measured under one noise. Rates: alarms a night over 50 series. ``family_rate``:
    nights with an alarm of ours, as it runs, among all.
    """

    noise: str
    family_rate: float
    rates: Mapping[str, float]
    powers: tuple[Power, ...]
    spikes: Mapping[str, float]


def measure_noise(name: str, otava: Path) -> NoiseResult:
    noise = noises()[name]
    quiet = quiet_series(noise, name)
    short = [values[: HISTORY + OTAVA_NIGHTS] for values in quiet]
    ours, naive, theirs = our_scores(quiet), naive_scores(quiet), otava_scores(otava, short)
    own = -math.log(NIGHT_BUDGET / FAMILY)
    default_otava = -math.log(0.001)
    rates = {
        "ours": alarm_rate(ours, own),
        "Otava": alarm_rate(theirs, default_otava),
        "naive": alarm_rate(naive, NAIVE_SHARE),
    }
    as_otava = threshold_at(ours, max(rates["Otava"], 1 / QUIET_NIGHTS))
    as_naive = threshold_at(ours, max(rates["naive"], 1 / QUIET_NIGHTS))
    powers = []
    for shift in SHIFTS:
        several = changed_series(noise, name, shift, TRIALS)
        by_ours = our_scores(several)
        by_otava = otava_scores(otava, several[:OTAVA_TRIALS], default_otava)
        powers.append(
            Power(
                noise=name,
                shift=shift,
                ours=found_share(by_ours, own),
                otava=found_share(by_otava, default_otava),
                ours_as_otava=found_share(by_ours[:OTAVA_TRIALS], as_otava),
                naive=found_share(naive_scores(several), NAIVE_SHARE),
                ours_as_naive=found_share(by_ours, as_naive),
            )
        )
    spiked = changed_series(noise, name, SPIKE, OTAVA_TRIALS)
    return NoiseResult(
        noise=name,
        family_rate=measure_quiet(name),
        rates=rates,
        powers=tuple(powers),
        spikes={
            "ours": found_share(our_scores(spiked), own),
            "Otava": found_share(otava_scores(otava, spiked), default_otava),
            "naive": found_share(naive_scores(spiked), NAIVE_SHARE),
        },
    )


@dataclass(frozen=True, slots=True)
class DetectionResult:
    """All noises. ``correlated``: nights with an alarm of ours under more of them."""

    noises: tuple[NoiseResult, ...]
    correlated: Mapping[str, float]


def measure_detection(say: Callable[[str], None], otava: Path | None) -> DetectionResult:
    """All noises, on all processors; makes the environment of Otava if none is given."""
    with tempfile.TemporaryDirectory(prefix="orchestrate-bench-") as scratch:
        python = otava or otava_environment(Path(scratch))
        results = []
        with ProcessPoolExecutor(max_workers=cores()) as pool:
            running = [pool.submit(measure_noise, name, python) for name in noises()]
            quiet = {name: pool.submit(measure_quiet, name) for name in more_correlated()}
            for each in running:
                results.append(each.result())
                say(f"detection: {results[-1].noise} noise measured")
            correlated = {name: rate.result() for name, rate in quiet.items()}
        return DetectionResult(tuple(results), correlated)


def shortfalls(results: Sequence[NoiseResult]) -> list[str]:
    """What misses its target. Power is promised for white noise; false alarms for every noise that
    Otava is measured under, too.
    """
    missed = [
        f"{each.noise}: {each.family_rate:.4f} alarms a quiet night, promised {PROMISED:.4f}"
        for each in results
        if each.family_rate > PROMISED
    ]
    missed += [
        f"{power.shift.name}: found in {power.ours:.0%}, promised {power.shift.wanted:.0%}"
        for each in results
        if each.noise == "white"
        for power in each.powers
        if power.shift.wanted is not None and power.ours < power.shift.wanted
    ]
    missed += [
        f"{each.noise}: single spikes raised an alarm in {each.spikes['ours']:.0%}"
        for each in results
        if each.spikes["ours"] > SPIKES_ALLOWED
    ]
    return missed


def detection_markdown(machine: Mapping[str, str], measured: DetectionResult) -> str:
    """The report: false alarms, then power."""
    results = measured.noises
    correlated = [(name, f"{rate:.4f}") for name, rate in measured.correlated.items()]
    alarms = [
        (
            each.noise,
            f"{each.family_rate:.4f}",
            *(f"{each.rates[name]:.3f}" for name in ("ours", "Otava", "naive")),
            *(f"{each.spikes[name]:.0%}" for name in ("ours", "Otava", "naive")),
        )
        for each in results
    ]
    powers = [
        (
            power.noise,
            power.shift.name,
            str(power.shift.within),
            f"{power.ours:.0%}",
            f"{power.otava:.0%}",
            f"{power.ours_as_otava:.0%}",
            f"{power.naive:.0%}",
            f"{power.ours_as_naive:.0%}",
            "yes" if power.ahead else "NO",
        )
        for each in results
        for power in each.powers
    ]
    quiet = (
        f"False alarms: {FAMILY} series, {HISTORY} quiet nights before, {QUIET_NIGHTS} judged"
        f" (ours as run: {QUIET_FAMILIES * QUIET_NIGHTS}, Otava: {OTAVA_NIGHTS}). Promised: at most"
        f" {PROMISED:.4f} a night."
    )
    changed = (
        f"Power at a CV of 1 %: share found of {TRIALS} changes (Otava, and ours beside it:"
        f" {OTAVA_TRIALS}). At equal alarms: our threshold lowered until we raise as many false"
        " alarms as the other rule does."
    )
    parts = (
        "# Detection over nights",
        table(("what", "value"), list(machine.items())),
        quiet,
        table(ALARM_COLUMNS, alarms),
        table(("more correlated noise", ALARM_COLUMNS[1]), correlated),
        changed,
        table(POWER_COLUMNS, powers),
        "\n".join([f"MISSED: {missed}" for missed in shortfalls(results)] or ["All targets met."]),
    )
    return "\n\n".join(parts) + "\n"


ALARM_COLUMNS = (
    "noise",
    "nights with an alarm: ours, as run",
    "alarms a night: ours",
    "Otava",
    "naive",
    "one spike alarms: ours",
    "Otava",
    "naive",
)
POWER_COLUMNS = (
    "noise",
    "change",
    "within nights",
    "ours, as run",
    "Otava",
    "ours at Otava's alarms",
    "naive",
    "ours at the naive rule's alarms",
    "not behind",
)
