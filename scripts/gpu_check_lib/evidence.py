#!/usr/bin/env python3
"""The workloads for evidence on this machine's GPUs, one after the other, directly by torchrun.

    python3 scripts/gpu_check_lib/evidence.py OUT [PART...]

Each part leaves OUT/PART.json: its command, its exit status, seconds, figures, gates that do not
hold, and its last words; what the workload wrote lies in OUT/PART. A part has a budget of its own,
and all have one together; one that fails or takes too long stops no other. Without GPUs the same
parts run small on two ranks.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu_check_lib.gpus import gpu_count

ROOT = Path(__file__).resolve().parents[2]
WORKLOADS = ROOT / "workloads"
TOTAL_S = 400.0
LEAST_S = 15.0
LAST_WORDS = 3000
CPU_RANKS = 2
ALL = 0


@dataclass(frozen=True, kw_only=True)
class Part:
    """``ranks`` 0 = one for each GPU."""

    name: str
    workload: str
    budget_s: float
    ranks: int = ALL
    options: Sequence[str] = ()


ON_GPUS = (
    Part(
        name="tp_check", workload="tp_check", budget_s=110,
        options=("--shape=qwen2-7b", "--precision=bf16", "--prompts=8", "--tokens=512"),
    ),
    Part(
        name="large_40b", workload="large", budget_s=120,
        options=("--shape=gpt-40b", "--precision=bf16", "--tp=0", "--batch=4",
                 "--prompt-tokens=2048", "--new-tokens=16", "--warmup=1", "--repeats=5"),
    ),
    Part(
        name="moe", workload="moe", budget_s=110,
        options=("--shape=qwen3-30b-a3b", "--precision=bf16", "--experts=grouped_mm", "--batch=4",
                 "--tokens=2048", "--warmup=5", "--pairs=60"),
    ),
    Part(
        name="memory", workload="memory", budget_s=70, ranks=1,
        options=("--shape=qwen2-7b", "--precision=bf16", "--batch=4", "--tokens=2048"),
    ),
    Part(
        name="stress", workload="stress", budget_s=75,
        options=("--seconds=30", "--width=8192", "--message-mib=1024", "--window-s=1"),
    ),
    Part(
        name="large_7b_fp8", workload="large", budget_s=60,
        options=("--shape=qwen2-7b", "--precision=fp8", "--tp=1", "--batch=8",
                 "--prompt-tokens=2048", "--new-tokens=16", "--warmup=1", "--repeats=5"),
    ),
)  # fmt: skip
ON_CPUS = tuple(
    Part(name=name, workload=workload, budget_s=100, ranks=ranks, options=options)
    for name, workload, ranks, options in (
        ("tp_check", "tp_check", CPU_RANKS, ()),
        ("large_40b", "large", CPU_RANKS, ("--tp=0",)),
        ("moe", "moe", CPU_RANKS, ()),
        ("memory", "memory", 1, ()),
        ("stress", "stress", CPU_RANKS, ()),
        ("large_7b_fp8", "large", CPU_RANKS, ("--precision=fp8",)),
    )
)


def run_part(part: Part, gpus: int, out: Path, limit_s: float) -> dict[str, Any]:
    """To its end, or until ``limit_s`` are over: all of its processes are ended then."""
    folder = out / part.name
    (folder / "reports").mkdir(parents=True, exist_ok=True)
    argv = command_of(part, gpus)
    began = time.monotonic()
    with (folder / "output.log").open("w+b") as log:
        process = subprocess.Popen(
            argv, stdout=log, stderr=log, env=environment(folder, gpus), start_new_session=True
        )
        try:
            status: int | str = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            status = f"ended after {limit_s:.0f} s"
        log.seek(0)
        words = log.read().decode(errors="replace")
    figures = figures_of(folder / "reports" / "rank-0.jsonl")
    return {
        "part": part.name,
        "argv": argv,
        "status": status,
        "seconds": round(time.monotonic() - began, 1),
        "figures": figures,
        "gates_broken": gates_broken(part.workload, figures),
        "last_words": words[-LAST_WORDS:],
    }


def command_of(part: Part, gpus: int) -> list[str]:
    ranks = part.ranks or max(1, gpus)
    script = WORKLOADS / part.workload / "run.py"
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}",
        str(script), *part.options,
    ]  # fmt: skip


def environment(folder: Path, gpus: int) -> dict[str, str]:
    return {
        **os.environ,
        "OMP_NUM_THREADS": "4" if gpus else "1",
        "ORCHESTRATE_OUTPUT_DIR": str(folder),
        "ORCHESTRATE_REPORT_DIR": str(folder / "reports"),
        "ORCHESTRATE_NODE": "here",
        "HF_HUB_OFFLINE": "1",
    }


def figures_of(report: Path) -> dict[str, dict[str, Any]]:
    """The final figures, and the energy of the measured window, that a rank reported."""
    if not report.exists():
        return {}
    records = [json.loads(line) for line in report.read_text().splitlines()]
    figures = {
        record["name"]: {"value": record["value"], "unit": record["unit"]}
        for record in records
        if record["type"] == "metric" and record["step"] is None
    }
    windows = [record for record in records if record["type"] == "energy" and record["final"]]
    return figures | ({"energy": windows[-1]} if windows else {})


def gates_broken(workload: str, figures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """By the workload's own declaration; a required figure that is missing counts."""
    declared = YAML(typ="safe").load((WORKLOADS / workload / "workload.yaml").read_text())
    broken = []
    for name, metric in declared["metrics"].items():
        gate = metric.get("gate", {})
        if name not in figures:
            broken += [f"{name} is missing"] if metric.get("required") else []
        elif not gate.get("min", -1e300) <= figures[name]["value"] <= gate.get("max", 1e300):
            broken.append(f"{name} = {figures[name]['value']:g}, gate {gate}")
    return broken


def main() -> None:
    """Every part, or those that are named."""
    out, wanted = Path(sys.argv[1]).resolve(), sys.argv[2:]
    out.mkdir(parents=True, exist_ok=True)
    gpus = gpu_count()
    deadline = time.monotonic() + TOTAL_S
    for part in ON_GPUS if gpus else ON_CPUS:
        if wanted and part.name not in wanted:
            continue
        left = deadline - time.monotonic()
        if left < LEAST_S:
            print(f"== {part.name}: left out, {TOTAL_S:g} s are over", flush=True)
            continue
        result = run_part(part, gpus, out, min(part.budget_s, left))
        (out / f"{part.name}.json").write_text(json.dumps(result, indent=1) + "\n")
        print(f"== {part.name}: {result['status']} in {result['seconds']} s", flush=True)
        for name, figure in result["figures"].items():
            shown = (
                json.dumps(figure)
                if name == "energy"
                else f"{figure['value']:.6g} {figure['unit']}"
            )
            print(f"   {name} = {shown}")
        print("\n".join(f"   GATE {broken}" for broken in result["gates_broken"]))
        if result["status"] != 0:
            print(result["last_words"], flush=True)


if __name__ == "__main__":
    main()
