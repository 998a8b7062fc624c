"""What captures say beside what is known, and what they cost, on the GPUs of this machine.

Payload of NVLink beside the formula, for each collective between two quiet moments; the energy
counter beside integrated power; a profile whose shares add up; and tokens per second of one
fine-tune while its sampler is stopped and continued in turn: the same GPUs in the same minute.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from orchestrator.core.captures.nvlink import Collectives, payload_per_gpu
from orchestrator.parsing.captures.sampled import parse_samples

from .gpus import has_gpus
from .product_runs import processes_of_run
from .random_models import ensure_large_model

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., Mapping[str, Any]]
PAYLOAD_TOLERANCE, ENERGY_TOLERANCE, COST_LIMIT = 0.03, 0.05, 0.005
TURN_S = 3.0  # how long the sampler is stopped, and then continued
GUARD_S = 0.3  # steps this near to a turn belong to neither side
WAIT_S = 90.0
SAMPLED = "power,clocks,memory,nvlink"
PROFILE = "profile=2@4"
# A step must be the GPU's work, for what the host does varies more than sampling costs.
ON_GPUS = ("preset=qwen2-7b", "steps=200", "micro_batch=2", "accumulation=1", "eval_every=0",
           "checkpoint_every=0", "train_conversations=4000", "eval_conversations=32",
           "max_new_tokens=8")  # fmt: skip
ON_CPUS = ("steps=60", "eval_every=0", "checkpoint_every=0", "train_conversations=200")


class Notes:
    """What was found, in ``out`` after each part."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.found: dict[str, Any] = {}

    def add(self, name: str, what: object) -> None:
        self.found[name] = what
        (self.out / "captures.json").write_text(json.dumps(self.found, indent=1))
        print(f"== captures, {name}: {json.dumps(what)}", flush=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """``run`` is given a name and the words of a run; ``hosts``: where nodes have their homes;
    ``home``: where runs come home; ``cluster``: the options that name all GPUs as one node.
    """

    run: Run
    home: Path
    hosts: Path
    cluster: Sequence[str]
    notes: Notes

    def run_all(self) -> None:
        """What fails in one part keeps no other from its turn."""
        parts = {"collectives": self.check_collectives, "fine-tune": self.check_finetune}
        for name, part in parts.items():
            try:
                part()
            except (OSError, LookupError, ValueError, subprocess.SubprocessError) as error:
                self.notes.add(f"{name} failed", repr(error))

    def check_collectives(self) -> None:
        """Payload beside the formula, and energy beside power."""
        run_id = f"gpu-check-payload-{os.getpid()}"
        words = [*self.cluster, "--run-id", run_id, "--budget", "run=100", "--capture", SAMPLED]
        script = ROOT / "tests" / "gpu"
        result = self.run("captures-payload", *words, "--", "collectives_payload.py", cwd=script)
        folder = self.home / "runs" / run_id
        _keep_summaries(folder, self.notes.out, "payload")
        self.notes.add("captures of collectives", result["captures"])
        found = sorted(folder.glob("artifacts/*/collectives.json"))
        self.notes.add("payload", list(_ratios(found[0].parent)))
        apart = _figures(result, "power").get("disagreement_max_fraction")
        good = apart is not None and apart <= ENERGY_TOLERANCE
        self.notes.add("energy counter beside integral", {"apart": apart, "verdict": good})

    def check_finetune(self) -> None:
        """A profile that adds up, and what sampling costs."""
        settings: Sequence[str] = ON_CPUS
        if has_gpus():
            model = ensure_large_model(self.notes.out.parent / "large-model")
            settings = (*ON_GPUS, f"model={model}")
        run_id = f"gpu-check-captures-{os.getpid()}"
        words = [*self.cluster, "-W", "finetune", "--run-id", run_id, "--budget", "run=220"]
        words += [f"--set={setting}" for setting in settings]
        turns = Turns(run_id, self.hosts)
        turns.start()
        try:
            result = self.run("captures-finetune", *words, "--capture", f"{SAMPLED},{PROFILE}")
        finally:
            turns.end()
        folder = self.home / "runs" / run_id
        _keep_summaries(folder, self.notes.out, "finetune")
        self.notes.add("captures of the fine-tune", result["captures"])
        self.notes.add("profile", _profile_verdict(result))
        self.notes.add("cost of sampling", cost(list(_steps(folder)), turns.changes))


def _ratios(node: Path) -> Iterator[dict[str, Any]]:
    """Of each collective: bytes by GPU between the quiet moments, over the formula."""
    done = json.loads((node / "collectives.json").read_text())
    data = (node / "captures" / "nvlink.csv").read_bytes()
    samples = parse_samples("nvlink", data, began=0.0)
    gpus = sorted({gpu for gpu, _ in samples.rows})
    for one in done:
        if "problem" in one:
            yield one
            continue
        counted = {gpu: _between(samples.points((gpu, -1), "sent_kib", 1024.0), one)
                   for gpu in gpus}  # fmt: skip
        kinds = {key: one[key] for key in ("op", "bytes", "ranks", "count")}
        expected = payload_per_gpu(Collectives(**kinds)) or 0.0
        ratios = [bytes_ / expected for bytes_ in counted.values()]
        good = all(abs(ratio - 1) <= PAYLOAD_TOLERANCE for ratio in ratios)
        yield {"op": one["op"], "ratios": ratios, "verdict": good}


def _between(points: Sequence[tuple[float, float]], one: Mapping[str, Any]) -> float:
    """From the last sample before it began to the first one after it had ended."""
    before = [count for t, count in points if t <= one["began"]]
    after = [count for t, count in points if t >= one["ended"]]
    return after[0] - before[-1] if before and after else math.nan


def _profile_verdict(result: Mapping[str, Any]) -> dict[str, Any]:
    figures = _figures(result, "profile")
    shares = {name: part for name, part in figures.items() if name.endswith("_fraction")}
    return {**shares, "sum": sum(shares.values()), "verdict": abs(sum(shares.values()) - 1) < 1e-6}


def _figures(result: Mapping[str, Any], kind: str) -> dict[str, float]:
    found = {capture["kind"]: capture["figures"] for capture in result["captures"]}
    figures: dict[str, float] = found[kind]
    return figures


class Turns(threading.Thread):
    """Stops and continues the run's sampler in turn, once its profile is over.

    ``changes``: when, by the wall clock, and whether it samples from then on.
    """

    def __init__(self, run_id: str, hosts: Path) -> None:
        super().__init__(daemon=True)
        self._run_id = run_id
        self._hosts = hosts
        self._over = threading.Event()
        self.changes: list[tuple[float, bool]] = []

    def end(self) -> None:
        self._over.set()
        self.join(2 * TURN_S)

    def run(self) -> None:
        deadline = time.monotonic() + WAIT_S
        while not self._profile_is_over() and not self._over.wait(0.5):
            if time.monotonic() > deadline:
                return
        samplers = list(_samplers(self._run_id))
        samples = True
        while samplers and not self._over.is_set():
            samples = not samples
            if not _signal(samplers, signal.SIGCONT if samples else signal.SIGSTOP):
                return
            self.changes.append((time.time(), samples))
            self._over.wait(TURN_S)
        _signal(samplers, signal.SIGCONT)

    def _profile_is_over(self) -> bool:
        pattern = f"**/runs/{self._run_id}/*/attempt-1/output/captures/profile/rank-*.json"
        for path in self._hosts.glob(pattern):
            try:
                return bool(json.loads(path.read_text()).get("reason") == "")
            except (OSError, ValueError):
                return False
        return False


def _samplers(run_id: str) -> Iterator[int]:
    for process in processes_of_run(run_id):
        if any(b"telemetry.sampler" in word for word in process.words):
            yield process.pid


def _signal(pids: Sequence[int], number: int) -> bool:
    """Whether all of them are still there."""
    try:
        for pid in pids:
            os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _steps(folder: Path) -> Iterator[tuple[float, float, float]]:
    """(when it ended, seconds, tokens) of each step, by the series and the curve of the run."""
    ended = {}
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        point = json.loads(line)
        if point.get("name") == "train_loss":
            ended[point["step"]] = point["t"]
    for path in sorted(folder.glob("artifacts/*/loss.jsonl"))[:1]:
        for line in path.read_text().splitlines():
            step = json.loads(line)
            if step["step"] in ended:
                yield ended[step["step"]], step["seconds"], step["tokens"]


def cost(
    steps: Sequence[tuple[float, float, float]], changes: Sequence[tuple[float, bool]]
) -> dict[str, Any]:
    """Tokens per second with the sampler over those without it, turn by turn."""
    rates = list(_rates(steps, changes))
    pairs = [
        (one if samples else other, other if samples else one)
        for (samples, one), (_, other) in pairwise(rates)
    ]
    losses = [1 - on / off for on, off in pairs]
    if len(losses) < 2:
        return {"turns": len(rates), "verdict": None, "reason": "too few turns to say"}
    mean = statistics.mean(losses)
    error = statistics.stdev(losses) / len(losses) ** 0.5
    on = [rate for samples, rate in rates if samples]
    off = [rate for samples, rate in rates if not samples]
    return {
        "turns": len(rates),
        "tokens_per_s_on": statistics.mean(on),
        "tokens_per_s_off": statistics.mean(off),
        "loss_mean": mean,
        "loss_standard_error": error,
        "loss_median": statistics.median(losses),
        "verdict": _verdict(mean, error),
    }


def _verdict(loss: float, error: float) -> bool | None:
    """None: the spread of the turns leaves it open."""
    if loss + 2 * error <= COST_LIMIT:
        return True
    return False if loss - 2 * error > COST_LIMIT else None


def _rates(
    steps: Sequence[tuple[float, float, float]], changes: Sequence[tuple[float, bool]]
) -> Iterator[tuple[bool, float]]:
    """(whether it sampled, tokens per second) of each turn that has whole steps."""
    for (began, samples), (ended, _) in pairwise(changes):
        inside = [
            (seconds, tokens)
            for t, seconds, tokens in steps
            if t - seconds >= began + GUARD_S and t <= ended - GUARD_S
        ]
        if inside:
            yield samples, sum(tokens for _, tokens in inside) / sum(s for s, _ in inside)


def _keep_summaries(folder: Path, out: Path, name: str) -> None:
    for path in folder.glob("captures/*/SUMMARY.md"):
        shutil.copy(path, out / f"{name}-{path.parent.name}.md")
    for path in folder.glob("artifacts/*/captures/**/*"):
        small = path.is_file() and path.stat().st_size < 4 << 20
        if small and path.suffix in {".csv", ".json", ".gz"}:
            shutil.copy(path, out / f"{name}-{path.name}")
    if (folder / "report.html").exists():
        shutil.copy(folder / "report.html", out / f"{name}-report.html")
