"""The cost model: how fast it predicts, what it adds to a plan, and how far it is from measured
points that it was not fitted to.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from .base.errors import BenchError
from .base.report import table
from .base.rounds import say_round

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from orchestrator.adapters.costs.cost_files import CostFiles  # noqa: E402 - after its folder
from orchestrator.adapters.costs.measured_points import observe_points  # noqa: E402
from orchestrator.core.costs.calibration import calibrate  # noqa: E402
from orchestrator.core.costs.checking import Score, check_points, scores  # noqa: E402
from orchestrator.core.costs.hardware import make_fabric  # noqa: E402
from orchestrator.core.costs.inference_prediction import predict_inference  # noqa: E402
from orchestrator.core.costs.inference_step import InferenceJob  # noqa: E402
from orchestrator.core.costs.predict import predict_training  # noqa: E402
from orchestrator.core.costs.tables import model_of  # noqa: E402
from orchestrator.core.costs.training_step import TrainingJob  # noqa: E402

POINTS = ROOT / "hardware" / "points"
PREDICTIONS = 10_000
MOST_S, MOST_PLAN_MS = 2.0, 10.0
# Of held-out points: mean absolute percentage error, and the share inside of 90 % intervals.
MOST_MAPE = {"step_s": 0.07, "tokens_per_s": 0.07, "peak_bytes": 0.05}
LEAST_INSIDE = 0.85
PLAN_S = 120.0


HeldOut = tuple[str, int, tuple[Score, ...]]  # a file, points fitted to, scores of the others


@dataclass(frozen=True, slots=True, kw_only=True)
class Plans:
    """Plans with predictions and without in turn, in milliseconds: as many of each."""

    what: str
    with_ms: list[float] = field(default_factory=list)
    without_ms: list[float] = field(default_factory=list)

    @property
    def added_ms(self) -> float:
        """What predicting costs, by the medians."""
        return median(self.with_ms) - median(self.without_ms)


@dataclass(slots=True, kw_only=True)
class Speed:
    """Seconds of one processor for so many predictions, and what predicting adds to plans: what was
    measured so far.
    """

    predictions_s: float | None = None
    plans: list[Plans] = field(default_factory=list)

    def __len__(self) -> int:
        return (self.predictions_s is not None) + sum(len(each.without_ms) for each in self.plans)

    @property
    def met(self) -> bool:
        """Both targets."""
        slow = [p for p in self.plans if not p.without_ms or p.added_ms > MOST_PLAN_MS]
        return self.predictions_s is not None and self.predictions_s <= MOST_S and not slow


def measure_speed(repeats: int, speed: Speed) -> None:
    """Predictions in this process; plans as whole commands in turn, with and without."""
    speed.predictions_s = _predict_many()
    with tempfile.TemporaryDirectory(prefix="orchestrate-bench-") as scratch:
        plain = str(_without_predictions(Path(scratch)))
        offline, asking = ("--offline", "--cluster", "nebius1x8"), ("--cluster", "local")
        for what, words, clock in (
            ("that asks two nodes, wall", asking, time.monotonic),
            ("offline, CPU", offline, _cpu_s),
        ):
            plans = Plans(what=what)
            speed.plans.append(plans)
            _plan_in_turn(plans, words, plain, repeats, clock)


def _plan_in_turn(
    plans: Plans, words: Sequence[str], plain: str, repeats: int, clock: Callable[[], float]
) -> None:
    for number in range(repeats + 1):  # the first ones fill caches
        started, taken = time.monotonic(), []
        for workload in ("finetune", plain):
            began = clock()
            _plan(workload, words, str(Path(plain).parent))
            taken.append(1e3 * (clock() - began))
        say_round(f"plan {plans.what}", number, repeats, time.monotonic() - started)
        if number:
            plans.with_ms.append(taken[0])
            plans.without_ms.append(taken[1])


def _cpu_s() -> float:
    """Of processes that were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _predict_many() -> float:
    files = CostFiles.from_environment(os.environ)
    tables = files.tables()
    model, shape = files.cost_model(tables, "h200"), files.shape(tables, "qwen2-7b")
    fabric = make_fabric(tables.gpus["h200"], tables.links, 8)
    began = time.process_time()
    for number in range(PREDICTIONS // 2):
        rows = 1 + number % 8
        job = TrainingJob(shape=shape, rows=rows, sequence=1024 + number % 512, gpus=1 + number % 4)
        predict_training(job, fabric, model)
        asked = InferenceJob(shape=shape, rows=1 + number % 256, prompt=128, answer=96)
        predict_inference(asked, fabric, model)
    return time.process_time() - began


def _without_predictions(scratch: Path) -> Path:
    """The same workload, whose file does not say what a step of it is."""
    folder = scratch / "finetune"
    shutil.copytree(ROOT / "workloads" / "finetune", folder, ignore=shutil.ignore_patterns("*.pyc"))
    file = folder / "workload.yaml"
    text = file.read_text()
    begin, end = text.index("\ntraining:\n"), text.index("\nmetrics:\n")
    file.write_text(text[:begin] + text[end:])
    return folder


def _plan(workload: str, words: Sequence[str], scratch: str) -> None:
    argv = [sys.executable, "-m", "orchestrator", "plan", "--workload", workload, "--json", *words]
    argv += ["--set", "preset=qwen2-7b"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ORCHESTRATE_HOME": f"{scratch}/home"}
    done = subprocess.run(
        argv, env=environment, cwd=scratch, capture_output=True, timeout=PLAN_S, check=False
    )
    if done.returncode:
        raise BenchError(f"plan ended with {done.returncode}: {done.stderr[-300:]!r}")


def held_out_scores() -> Iterator[HeldOut]:
    """For each file of points: its name, how many were fitted to, and the scores of the others."""
    files = CostFiles.from_environment(os.environ)
    tables = files.tables()
    for path in sorted(POINTS.glob("*.jsonl")):
        found = list(observe_points(files, tables, path))
        device = tables.gpus[found[0].gpu].device
        fitted = calibrate(found, tables.assumed, device, made="bench", source=path.name)
        model = model_of(device, tables.assumed, fitted)
        checks = list(check_points((each for each in found if each.held_out), model))
        used = sum(not each.held_out for each in found)
        yield path.name, used, tuple(scores(checks))


def missed(score: Score) -> list[str]:
    """The targets that a score misses."""
    most = MOST_MAPE.get(score.figure)
    wrong = [f"MAPE above {100 * most:.0f} %"] if most is not None and score.mape > most else []
    if most is not None and score.inside < LEAST_INSIDE:
        wrong.append(f"inside below {100 * LEAST_INSIDE:.0f} %")
    return wrong


def speed_markdown(speed: Speed) -> str:
    """What is fast enough, and what is not."""
    rows = []
    if speed.predictions_s is not None:
        met = _word(speed.predictions_s <= MOST_S)
        what = f"{PREDICTIONS:,} predictions, one core"
        rows.append((what, f"{speed.predictions_s:.2f} s", f"{MOST_S:g} s", met))
    for plans in filter(lambda plans: plans.without_ms, speed.plans):
        middle = f"{median(plans.with_ms):.0f} and {median(plans.without_ms):.0f} ms"
        added = f"{plans.added_ms:.1f} ms"
        met = _word(plans.added_ms <= MOST_PLAN_MS)
        what = f"added to a plan {plans.what} (medians of {len(plans.with_ms)}: {middle})"
        rows.append((what, added, f"{MOST_PLAN_MS:g} ms", met))
    return table(("what", "measured", "target", ""), rows)


def scores_markdown(name: str, used: int, found: tuple[Score, ...]) -> str:
    """The held-out points of one file, with the bare roofline beside the model."""
    head = ("figure", "points", "MAPE", "bias", "worst", "inside of 90 %", "roofline's MAPE", "")
    rows = [
        (
            score.figure,
            str(score.points),
            *map(_percent, (score.mape, score.bias, score.worst, score.inside)),
            "" if score.roofline_mape is None else _percent(score.roofline_mape),
            "; ".join(missed(score)) or ("met" if score.figure in MOST_MAPE else ""),
        )
        for score in found
    ]
    return f"{name}: fitted to {used} points, judged on others\n\n{table(head, rows)}"


def _percent(part: float) -> str:
    return f"{100 * part:.1f} %"


def _word(met: bool) -> str:
    return "met" if met else "MISSED"
