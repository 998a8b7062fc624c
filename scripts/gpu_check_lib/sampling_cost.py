"""What the sampler of captures costs a training beside it, in turns with it and without it.

The sampler is the process that `--capture power,nvlink,clocks` starts beside ranks, with the same
arguments; here it is started and ended beside a run that captures nothing, every few seconds. A
pair is one turn with it and one without it, in alternating order, so that what drifts slowly is on
both sides. Steps near a change belong to neither.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from .gpus import gpu_count
from .product_runs import environment

KINDS = "power,nvlink,clocks"
PROGRAM = "from orchestrator.node_agent.telemetry.sampler import main; main()"
LIMIT = 0.005
TURN_S = 5.0
SETTLE_S = 1.0  # the sampler starts, or ends, within this
STEPS_FIRST = 8  # the first steps are not steady
WAIT_S = 150.0
# Quantiles of Student's t, one-sided 97.5 %, by degrees of freedom; beyond them that of 30.
T = {3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 10: 2.23, 12: 2.18, 15: 2.13,
     20: 2.09, 30: 2.04}  # fmt: skip


class TrainingStep(NamedTuple):
    """When it ended, in seconds since the epoch; how long it took; its tokens."""

    ended: float
    seconds: float
    tokens: int


class Change(NamedTuple):
    """When, in seconds since the epoch, and whether it samples from then on; None = the end."""

    at: float
    samples: bool | None


class Turns(threading.Thread):
    """Begins when the run's training is under way, and ends with its last step or ``end``."""

    def __init__(self, run: Path, folder: Path) -> None:
        super().__init__(daemon=True)
        self._run, self._folder = run, folder
        self._over = threading.Event()
        self.changes: list[Change] = []

    def end(self) -> None:
        """No more turns; the sampler is gone."""
        self._over.set()
        self.join(2 * TURN_S)

    def run(self) -> None:
        deadline = time.monotonic() + WAIT_S
        while not self._over.wait(0.5) and len(list(read_curve(self._run))) < STEPS_FIRST:
            if time.monotonic() > deadline:
                return
        turn = 0
        while not self._over.is_set():
            samples = turn % 4 in {0, 3}  # on off, off on, on off, ...
            self.changes.append(Change(time.time(), samples))
            self._turn(samples)
            turn += 1
        self.changes.append(Change(time.time(), None))

    def _turn(self, samples: bool) -> None:
        if not samples:
            self._over.wait(TURN_S)
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        gpus = ",".join(map(str, range(gpu_count())))
        argv = [sys.executable, "-c", PROGRAM, str(self._folder), KINDS, gpus, ""]
        sampler = subprocess.Popen(argv, env=environment())
        self._over.wait(TURN_S)
        sampler.terminate()
        sampler.wait(TURN_S)


def read_curve(run: Path) -> Iterator[tuple[int, float]]:
    """(step, when it ended) of each step that is over, by the run's series."""
    path = run / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            point = json.loads(line)
        except ValueError:  # the line that is being written
            return
        if point.get("name") == "train_loss":
            yield point["step"], point["t"]


def read_steps(run: Path) -> Iterator[TrainingStep]:
    """Of the first node, from the series and the curve of a run that is over."""
    ended = dict(read_curve(run))
    for path in sorted(run.glob("artifacts/*/loss.jsonl"))[:1]:
        for line in path.read_text().splitlines():
            step = json.loads(line)
            if step["step"] in ended:
                yield TrainingStep(ended[step["step"]], step["seconds"], step["tokens"])


def cost(steps: Sequence[TrainingStep], changes: Sequence[Change]) -> dict[str, Any]:
    """Which part of the rate the sampler takes: steps with it over steps without it, pair by pair,
    and the upper end of the 95 % interval, by which it is judged.
    """
    turns = list(_turns(steps, changes))
    pairs = [
        {samples: rate for samples, rate, _ in pair}
        for pair in zip(turns[::2], turns[1::2], strict=False)
    ]
    losses = [1 - pair[True] / pair[False] for pair in pairs if len(pair) == 2]
    steps_used = sum(count for _, _, count in turns)
    found = {"pairs": len(losses), "steps": steps_used, "losses": losses, "changes": changes}
    if len(losses) < min(T) + 1:
        return {**found, "verdict": None, "reason": "too few turns to say"}
    mean = statistics.mean(losses)
    error = statistics.stdev(losses) / math.sqrt(len(losses))
    quantile = T[max(degrees for degrees in T if degrees <= len(losses) - 1)]
    low, high = mean - quantile * error, mean + quantile * error
    verdict = True if high <= LIMIT else False if low > LIMIT else None
    means = {
        name: statistics.mean(rate for samples, rate, _ in turns if samples is side)
        for name, side in (("tokens_per_s_on", True), ("tokens_per_s_off", False))
    }
    return {
        **found, **means, "loss": mean, "standard_error": error, "interval_95": [low, high],
        "verdict": verdict,
    }  # fmt: skip


def _turns(
    steps: Sequence[TrainingStep], changes: Sequence[Change]
) -> Iterator[tuple[bool, float, int]]:
    """(whether it sampled, tokens/s, steps) of each turn; the first without whole steps ends them,
    for pairs are counted from the first. Steps with fewer tokens take less time.
    """
    for now, after in pairwise(changes):
        inside = [
            step
            for step in steps
            if step.ended - step.seconds >= now.at + SETTLE_S and step.ended <= after.at
        ]
        if now.samples is None or not inside:
            return
        rate = sum(step.tokens for step in inside) / sum(step.seconds for step in inside)
        yield now.samples, rate, len(inside)
