"""Load tests, MLPerf-style tests and power baselines of the built-in engine through the product, on
one GPU.

Models of known shapes with random weights are served, so nothing is downloaded. Each run has a time
limit of its own, and its figures, beside those that were predicted, are written before the next one
begins.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUDGET_S = 150.0
PEER = "GPU_CHECK_AIPERF"  # where AIPerf is; without it nothing is cross-checked

# Runs the verb `run` of the product with these words, as scripts/gpu_check does; its result object.
Orchestrate = Callable[..., dict[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRun:
    """One run: its workload and settings, and the most seconds that it may take."""

    name: str
    workload: str
    settings: tuple[str, ...]
    most_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadScale:
    """What is served, and how much is asked of it. ``rate`` is in requests/s, within what the
    engine can do; ``mlperf`` and ``short`` are settings of that workload, without LoadGen and with;
    ``other``: another shape; ``most``: requests at once; ``large``: settings of that workload, run
    by run.
    """

    shape: str
    gpus: bool
    rate: float
    prompt_words: int
    output_tokens: int
    duration_s: float
    processes: int
    power: tuple[str, ...]
    mlperf: tuple[str, ...]
    short: tuple[str, ...]
    other: str
    most: int
    large: tuple[tuple[str, ...], ...]


ON_GPU = LoadScale(
    shape="qwen2-7b",
    gpus=True,
    rate=40.0,
    prompt_words=64,  # two tokens each
    output_tokens=128,
    duration_s=15.0,
    processes=4,
    power=("shape=qwen2-7b", "precisions=bf16", "batches=1,16,128", "prompt_tokens=128",
           "new_tokens=128", "seconds=4", "gpu_hour_price=3"),
    mlperf=("shape=qwen2-7b", "dtype=bf16", "ignore_eos=true", "samples=1024", "batch=128",
            "prompt_words=190", "max_new_tokens=128", "context=512"),
    short=("preset=short", "shape=llama-3.1-8b", "dtype=bf16", "ignore_eos=true", "samples=512",
           "batch=64", "prompt_words=190", "max_new_tokens=128", "context=512"),
    other="llama-3.1-8b",
    most=256,
    large=(("preset=7b",), ("preset=40b", "tp=1", "new_tokens=32")),
)  # fmt: skip
ON_CPU = LoadScale(
    shape="tiny",
    gpus=False,
    rate=5.0,
    prompt_words=4,
    output_tokens=8,
    duration_s=12.0,
    processes=1,
    power=("batches=1,4", "seconds=0.2"),
    mlperf=("samples=16",),
    short=("preset=short", "samples=64"),
    other="tiny",
    most=4,
    large=((),),
)


def planned_runs(scale: LoadScale, subject: str) -> tuple[LoadRun, ...]:
    """``loadtest``: within capacity; far beyond it, which ends as soon as it is found; rows of
    `power`. ``mlperf``: without LoadGen, then by its rules. ``cross_check``: AIPerf's figures
    beside ours, of the same load in one run. ``rates``: a quarter of the rate, another shape and
    prompts of many lengths; ``more_rates``: at further rates; ``capacity``: as many at once as an
    engine takes, rows of `power`, and `large`.
    """
    most_s = 120.0 if not scale.gpus else 60.0
    served = (
        f"shape={scale.shape}",
        f"prompt_words={scale.prompt_words}",
        f"output_tokens={scale.output_tokens}",
        f"processes={scale.processes}",
    )

    def load(name: str, *settings: str, more_s: float = 0.0) -> LoadRun:
        words, longest_s = (*served, *settings), most_s + more_s
        return LoadRun(name=name, workload="loadtest", settings=words, most_s=longest_s)

    def other(name: str, workload: str, settings: tuple[str, ...]) -> LoadRun:
        return LoadRun(name=name, workload=workload, settings=settings, most_s=most_s)

    within = (f"rate={scale.rate}", f"duration={scale.duration_s}")
    beyond = (f"rate={16 * scale.rate}", "duration=20", "warmup=64")
    peer = ("cross_check=aiperf", f"cross_check_program={os.environ.get(PEER, 'aiperf')}")
    steady = ("arrival=constant", f"rate={scale.rate / 4}", f"duration={scale.duration_s}")
    closed = ("arrival=concurrency", f"concurrency={scale.most}", "warmup=16")
    return {
        "loadtest": (load("within", *within), load("beyond", *beyond),
                     other("power", "power", scale.power)),
        "mlperf": (other("mlperf", "mlperf", scale.mlperf),
                   other("mlperf-short", "mlperf", scale.short)),
        # The tool's load, and ours again.
        "cross_check": (load("cross-check", *steady, *peer, more_s=2 * scale.duration_s),),
        "rates": (load("quarter", f"rate={scale.rate / 4}", f"duration={scale.duration_s}"),
                  load("other", f"shape={scale.other}", *within),
                  other("mixed", "mlperf", scale.mlperf)),
        "more_rates": (load("more", f"rate={scale.rate * 5 / 8}", f"duration={scale.duration_s}"),
                       load("other-half", f"shape={scale.other}", f"rate={scale.rate / 2}",
                            f"duration={scale.duration_s}"),
                       other("mixed", "mlperf", scale.mlperf)),
        "capacity": (load("capacity", *closed, f"duration={scale.duration_s}"),
                     other("power", "power", scale.power),
                     *(other(f"large-{index}", "large", each)
                       for index, each in enumerate(scale.large))),
    }[subject]  # fmt: skip


def measure_serving(scale: LoadScale, subject: str, out: Path, orchestrate: Orchestrate) -> None:
    """All runs that the time allows; `SUBJECT.json` in ``out`` has what each came to."""
    began = time.monotonic()
    inventory = out / "one-gpu.yaml"
    inventory.write_text(json.dumps(inventory_of(scale.gpus)))
    found: dict[str, Any] = {}
    for run in planned_runs(scale, subject):
        left_s = BUDGET_S - (time.monotonic() - began)
        if scale.gpus and left_s < run.most_s / 2:
            found[run.name] = {"skipped": f"{left_s:.0f} s are left"}
        else:
            found[run.name] = _one_run(run, inventory, out, orchestrate)
        (out / f"{subject}.json").write_text(json.dumps(found, indent=1))
        print(f"== {run.name}: {_brief(found[run.name])}", flush=True)


def _one_run(
    run: LoadRun, inventory: Path, out: Path, orchestrate: Orchestrate
) -> dict[str, object]:
    began = time.monotonic()
    words = ["-C", str(inventory), "-W", run.workload, "--budget", f"run={run.most_s:g}"]
    settings = [word for setting in run.settings for word in ("--set", setting)]
    try:
        result = orchestrate(out, f"load-{run.name}", *words, *settings)
    except Exception as error:  # noqa: BLE001 - the other runs are measured all the same
        return {"error": f"{type(error).__name__}: {error}"}
    return {"seconds": time.monotonic() - began, **dict(_kept(result))}


def _brief(found: Mapping[str, Any]) -> str:
    """What is not among the figures that were printed."""
    energy = found.get("energy") or {}
    names = ("energy_valid", "reasons", "seconds", "joules", "watts_mean", "tokens_per_joule",
             "joules_per", "nodes")  # fmt: skip
    told = {name: found.get(name) for name in ("error", "skipped", "failure") if found.get(name)}
    per_million = (found.get("cost") or {}).get("per_million")
    return json.dumps({**told, "energy": {name: energy.get(name) for name in names},
                       "per_million": per_million})  # fmt: skip


def _kept(result: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """What is read of a result."""
    for name in (
        *("run_id", "status", "exit_code", "failure", "energy", "cost", "timings"),
        *("predictions", "warnings"),
    ):
        yield name, result.get(name)
    yield "metrics", {name: metric["value"] for name, metric in result["metrics"].items()}


def inventory_of(gpus: bool) -> dict[str, Any]:
    """This machine as one node, with its first GPU if it has any, and a price."""
    node = {
        "name": "here",
        "transport": "local",
        "python": {"interpreter": sys.executable},
        "gpus": {"indices": [0]} if gpus else 0,
        "price_per_hour": 3,
    }
    return {"name": "one-gpu", "currency": "USD", "nodes": [node]}
