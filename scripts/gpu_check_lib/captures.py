"""What captures say beside what is known, and what they cost, on the GPUs of this machine.

Payload of NVLink beside the formula, for each collective between two quiet moments; the energy
counter beside integrated power; a profile whose shares add up; and the steps of one fine-tune with
and without a sampler in turn (sampling_cost.py).
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.core.captures.nvlink import Collectives, payload_per_gpu
from orchestrator.parsing.captures.sampled import parse_samples

from .gpus import has_gpus
from .random_models import ensure_large_model
from .sampling_cost import Turns, cost, read_steps

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., Mapping[str, Any]]
PAYLOAD_TOLERANCE, ENERGY_TOLERANCE = 0.03, 0.05
SAMPLED = "power,clocks,memory,nvlink"
PROFILE = "profile=2@4"
# A step must be the GPU's work, for what the host does varies more than sampling costs.
ON_GPUS = ("preset=qwen2-7b", "micro_batch=2", "accumulation=1", "eval_every=0",
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
    """``run`` is given a name and the words of a run; ``home``: where runs come home; ``cluster``:
    the options that name all GPUs as one node.
    """

    run: Run
    home: Path
    cluster: Sequence[str]
    notes: Notes

    def run_all(self) -> None:
        """What fails in one part keeps no other from its turn."""
        parts = {
            "collectives": self.check_collectives,
            "fine-tune": self.check_finetune,
            "cost": self.check_cost,
        }
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
        """A profile that adds up, and the sampled captures of the same run."""
        words = self._finetune("captures", "steps=40")
        result = self.run("captures-finetune", *words, "--capture", f"{SAMPLED},{PROFILE}")
        _keep_summaries(self._folder("captures"), self.notes.out, "finetune")
        self.notes.add("captures of the fine-tune", result["captures"])
        self.notes.add("profile", _profile_verdict(result))

    def check_cost(self) -> None:
        """What sampling costs a fine-tune that captures nothing by itself."""
        words = self._finetune("cost", "steps=240")
        folder = self._folder("cost")
        turns = Turns(folder, self.notes.out / "sampler")
        turns.start()
        try:
            result = self.run("captures-cost", *words)
        finally:
            turns.end()
        self.notes.add("cost of sampling", cost(list(read_steps(folder)), turns.changes))
        self.notes.add("predictions of the fine-tune", result["predictions"])

    def _folder(self, name: str) -> Path:
        return self.home / "runs" / f"gpu-check-{name}-{os.getpid()}"

    def _finetune(self, name: str, *settings: str) -> list[str]:
        chosen: Sequence[str] = ON_CPUS
        if has_gpus():
            model = ensure_large_model(self.notes.out.parent / "large-model")
            chosen = (*ON_GPUS, *settings, f"model={model}")
        words = [*self.cluster, "-W", "finetune", "--run-id", self._folder(name).name]
        return [*words, "--budget", "run=220", *(f"--set={setting}" for setting in chosen)]


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


def _keep_summaries(folder: Path, out: Path, name: str) -> None:
    for path in folder.glob("captures/*/SUMMARY.md"):
        shutil.copy(path, out / f"{name}-{path.parent.name}.md")
    for path in folder.glob("artifacts/*/captures/**/*"):
        small = path.is_file() and path.stat().st_size < 4 << 20
        if small and path.suffix in {".csv", ".json", ".gz"}:
            shutil.copy(path, out / f"{name}-{path.name}")
    if (folder / "report.html").exists():
        shutil.copy(folder / "report.html", out / f"{name}-report.html")
