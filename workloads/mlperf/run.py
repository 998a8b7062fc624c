#!/usr/bin/env python3
"""Batch inference over a set of prompts, MLPerf-style: not an MLPerf result.

    python run.py
    python run.py --model meta-llama/Llama-3.1-8B-Instruct --dtype bf16 --dataset prompts.jsonl

The first downloads nothing: it makes a small model and answers generated prompts, in the same way
as the real presets in workload.yaml do.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

if not __package__:  # a script: its folder is a package then, too, and the kit lies beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = Path(__file__).resolve().parent.name

import torch

import orchestrate_kit as kit

from .offline import Phases, answer_prompts, measure_pace, warm_up
from .parameters import Parameters
from .serving_engine import ServingEngine


def run(parameters: Parameters) -> None:
    """Load, warm up, answer, report. Nothing is asked for before this rank is ready to answer."""
    engine = ServingEngine(parameters, int(os.environ.get("LOCAL_RANK", "0")))
    warm_up(engine, parameters)
    print(f"ready on {engine.device}: fingerprint {engine.fingerprint[:16]}", flush=True)
    if parameters.under_load and os.environ.get("ORCHESTRATE_SAMPLES") != "leased":
        print("no LoadGen here, which runs beside orchestrate: all prompts at once", flush=True)
    per_s = measure_pace(engine, parameters) if parameters.under_load else 0.0
    report(answer_prompts(engine, parameters, per_s))


def report(phases: Phases) -> None:
    """This worker's own rates, under its own name; the coordinator adds what all did together."""
    for name, rate in phases.rates().items():
        kit.metric(f"{name}.{_worker()}", rate, "tok/s")


def _worker() -> str:
    """The node's name, and the rank on it where there are several."""
    node = os.environ.get("ORCHESTRATE_NODE") or "here"
    alone = os.environ.get("LOCAL_WORLD_SIZE", "1") == "1"
    return node if alone else f"{node}.{os.environ.get('LOCAL_RANK', '0')}"


def _out_of_memory(error: BaseException) -> bool:
    text = str(error)
    on_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in text
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or on_cpu


def _last_words(error: BaseException, parameters: Parameters) -> str:
    """One line for the end of stderr: which rank, what happened, what to do."""
    where = f"mlperf: rank {kit.rank()}"
    if not _out_of_memory(error):
        first, *_ = str(error).splitlines() or [""]
        return f"{where}: {type(error).__name__}: {first}"
    return (
        f"{where}: out of memory with --batch {parameters.batch} --max-new-tokens "
        f"{parameters.max_new_tokens}: lower either, or use --dtype bf16"
    )


def main() -> None:
    """Run as the command line says; any failure ends this rank at once with status 1."""
    parameters = kit.parse(Parameters)
    try:
        run(parameters)
    except (Exception, MemoryError) as error:  # noqa: BLE001 - printed, and the process ends here
        traceback.print_exc()
        print(_last_words(error, parameters), file=sys.stderr, flush=True)
        _leave(1)
    _leave(0)


def _leave(code: int) -> None:
    """End now: torch's threads have aborted an interpreter that was done, and a result that is
    complete must not end as a failure.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
