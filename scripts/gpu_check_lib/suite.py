"""The suite for a node with eight B200 on whatever GPUs are here, with loads of seconds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from .gpus import gpu_count, has_gpus

ROOT = Path(__file__).resolve().parents[2]
# Then it is interrupted; the next call resumes it.
BUDGET_S = float(os.environ.get("GPU_CHECK_SUITE_S", "520"))
GRACE_S = 60.0
# What is another of a step than the bundled suite says: its sizes, so that all fit ten minutes.
SHORT: Mapping[str, Mapping[str, Any]] = {
    "tensor-parallel": {"parameters": {"shape": "llama-3.1-8b", "prompts": 4}, "limit_s": 180},
    "load": {
        "parameters": {
            "shape": "llama-3.1-8b",
            "rate": 40,
            "duration": 15,
            "prompt_words": 64,
            "output_tokens": 128,
            "processes": 4,
        },
        "limit_s": 180,
    },
    "nvlink": {"preset": "quick", "limit_s": 240},
    "stress": {"parameters": {"seconds": 20}, "limit_s": 120},
    "efficiency": {"parameters": {"seconds": 4, "batches": "8,64"}, "limit_s": 180},
    "nvlink-stress": {"parameters": {"seconds": 20}, "limit_s": 120},
    "memory": {"limit_s": 180},
    # Without the download: random weights of that size.
    "accuracy": {"preset": "tiny", "parameters": {"shape": "llama-3.1-8b", "precision": "bf16"}},
    "experts": {"parameters": {"pairs": 10}, "limit_s": 180},
    "large": {
        "parameters": {"repeats": 2, "warmup": 1},
        "limit_s": 240,
    },
}
# What one GPU with room for all of a model's weights does of it.
ALONE: Mapping[str, Mapping[str, Any]] = {"large": {"requires": {"gpus": 1, "gpu_memory_gib": 100}}}


def write_short(target: Path, gpus: int) -> None:
    """The bundled suite with ``SHORT`` over its steps, for so many GPUs."""
    data = YAML(typ="safe").load((ROOT / "suites" / "b200x8.yaml").read_text())
    alone = ALONE if gpus == 1 else {}
    steps = [
        {**step, **SHORT.get(step["name"], {}), **alone.get(step["name"], {})}
        for step in data["steps"]
    ]
    with target.open("w") as stream:
        YAML().dump({**data, "steps": steps}, stream)


def run_suite(hosts: Path, out: Path, environment: Mapping[str, str]) -> None:
    """On all GPUs as the one node of ``hosts``/whole.yaml; what it prints goes to ``out`` and to
    stdout as it comes. Without a GPU the suite `smoke`.
    """
    cluster = hosts / "whole.yaml"
    suite = out / "b200x8.yaml"
    write_short(suite, gpu_count())
    name = str(suite) if has_gpus() else str(ROOT / "suites" / "smoke.yaml")
    begun = Path(environment["ORCHESTRATE_HOME"], "suites").is_dir()
    words = ["suite", "run", name, "-C", str(cluster), "--json", "--archive-to", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *words, *(["--resume"] if begun else [])],
        env=dict(environment),
        stdout=(out / "suite.jsonl").open("wb"),
        stderr=(out / "suite.stderr").open("wb"),
    )
    try:
        process.wait(BUDGET_S)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        process.wait(GRACE_S)
    print(f"== suite: exit {process.returncode}")
    for line in (out / "suite.jsonl").read_text().splitlines():
        print("\n".join(_told(json.loads(line))))
    print((out / "suite.stderr").read_text()[-1500:], flush=True)


def _told(record: Mapping[str, Any]) -> list[str]:
    if record["type"] == "event":
        return [f"   {json.dumps(record['event'])}"]
    figures = [
        f"   {step['name']}.{name} = {metric['value']} {metric['unit']} {metric['verdict']}"
        for step in record["steps"]
        for name, metric in step["metrics"].items()
    ]
    return [f"== {record['status']}, archive {json.dumps(record['archive'])}", *figures]
