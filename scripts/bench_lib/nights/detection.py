"""Detection over nights: false alarms and power, beside Apache Otava and the naive rule.

Series are made from seeds; a change is injected into each; all three rules see the same values, one
night after the other, as they would in use. Ours is what the program runs (``judge_night`` over 50
series, ``find_split`` for one). Otava runs with its defaults in a virtual environment of its own.
A night on which a rule flags what it did not flag the night before raises an alarm.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

from bench_lib.base.bed import ROOT, cores
from bench_lib.base.errors import BenchError

from .night_noise import (
    FAMILY,
    HISTORY,
    QUIET_NIGHTS,
    SHIFTS,
    SPIKE,
    Shift,
    changed_series,
    more_correlated,
    noises,
    quiet_series,
)
from .oracle import oracle_share

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from orchestrator.core.detection.night_series import (
    FigureState,
    KnownChange,
    NightFigure,
    NightSeries,
)
from orchestrator.core.detection.night_verdict import (
    NIGHT_BUDGET,
    WORSE_SHARE,
    judge_night,
    known_changes,
)
from orchestrator.core.detection.split_scan import find_split
from orchestrator.core.model.workload import Direction

OTAVA = "apache-otava==0.8.0"
OTAVA_PROGRAM = Path(__file__).parents[1] / "programs" / "otava_scores.py"
RECENT = 20  # a change point of Otava counts as news if it lies this near
NAIVE_NIGHTS, NAIVE_SHARE = 10, 0.05
OTAVA_NIGHTS = 24
QUIET_FAMILIES = 4  # of ours, as it runs: 1,600 nights
TRIALS, OTAVA_TRIALS = 400, 40  # Otava takes a hundred times as long

Scores = list[list[float]]  # of each series, of each night: the larger, the surer


def our_scores(several: Sequence[Sequence[float]]) -> Scores:
    """-log p of the best split, night for night: of a figure that should be high."""
    scores = []
    for values in several:
        row = []
        for night in range(HISTORY + 1, len(values) + 1):
            split = find_split(values[:night], WORSE_SHARE)
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
    """Nights with a new regression among all nights, by what the program runs: Holm over a family.
    An improvement, and the recovery from an alarm that was false, wake nobody.
    """
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
        alarms += any(change.state is FigureState.REGRESSION for change in new)
    return alarms / len(names[HISTORY:])


def measure_quiet(name: str) -> float:
    """Nights with an alarm of ours, of several families under one noise."""
    noise = {**noises(), **more_correlated()}[name]
    rates = [judged_alarm_rate(quiet_series(noise, name, n)) for n in range(QUIET_FAMILIES)]
    return sum(rates) / len(rates)


@dataclass(frozen=True, slots=True)
class Power:
    """Shares found of one change under one noise: ours as it runs, the others as they are, and ours
    with its threshold lowered until it raises as many false alarms as each of them. ``oracle``:
    what a rule finds that knows all but the night, at the alarms of ours as it runs.
    """

    noise: str
    shift: Shift
    ours: float
    oracle: float | None
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
    family_rate = measure_quiet(name)
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
                oracle=oracle_share(name, shift, TRIALS, family_rate),
                otava=found_share(by_otava, default_otava),
                ours_as_otava=found_share(by_ours[:OTAVA_TRIALS], as_otava),
                naive=found_share(naive_scores(several), NAIVE_SHARE),
                ours_as_naive=found_share(by_ours, as_naive),
            )
        )
    spiked = changed_series(noise, name, SPIKE, OTAVA_TRIALS)
    return NoiseResult(
        noise=name,
        family_rate=family_rate,
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
