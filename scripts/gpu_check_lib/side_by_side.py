#!/usr/bin/env python3
"""As many engines as GPUs, each alone and all at once: what they lose to each other.

    python3 scripts/gpu_check_lib/side_by_side.py side_by_side.json [ENGINES]

Every engine is a process with one GPU and a model of Qwen2-7B's shape. Rounds of 512 requests at
once (128 tokens in, 128 out) are interleaved: each engine alone, then all of them. Without a GPU
the same is done with small models, by default two.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

BUDGET_S = 80.0
READY_S = 60.0
ROUND_S = 30.0
MOST_ROUNDS = 3
WORKER = "--worker"


def serve_rounds() -> None:
    """One engine: a line on standard output once it is warm, then one for each line that comes."""
    from transformers import Qwen2Config

    from gpu_check_lib.engine import DEVICE, LARGE, ON_GPU, SMALL, asked, prompts_of
    from orchestrate_serving.builtin.model import Model
    from orchestrate_serving.builtin.options import EngineOptions
    from orchestrate_serving.builtin.weights import random_weights

    scale = LARGE if ON_GPU else SMALL
    weights = random_weights(Qwen2Config(**scale.shape), scale.dtype, DEVICE, 0)
    model = Model(name="side-by-side", weights=weights, tokenizer=None, ends=())
    prompts = prompts_of(scale, scale.requests)
    options = EngineOptions(slots=scale.requests, context=scale.prompt + scale.answer)
    with asked(model, options) as engine:
        engine.answers(prompts, scale.answer)
        print("{}", flush=True)
        for _ in sys.stdin:
            began = time.monotonic()
            tokens = sum(map(len, engine.answers(prompts, scale.answer)))
            entry = {"began": began, "ended": time.monotonic(), "tokens": tokens}
            print(json.dumps(entry), flush=True)


class EngineProcess:
    """An engine with a GPU of its own; :meth:`next` reads a line of it."""

    def __init__(self, gpu: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "CUDA_VISIBLE_DEVICES": str(gpu)},
        )
        self._watchdog = threading.Timer(BUDGET_S + ROUND_S, self._process.kill)
        self._watchdog.start()

    def begin(self) -> None:
        """Ask for one round."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def next(self) -> dict[str, float]:
        """Raises ``RuntimeError`` when the engine has ended."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"an engine ended with status {self._process.wait(ROUND_S)}")
        entry: dict[str, float] = json.loads(line)
        return entry

    def close(self) -> None:
        self._watchdog.cancel()
        self._process.kill()
        self._process.communicate()


@contextmanager
def started_engines(count: int) -> Iterator[Sequence[EngineProcess]]:
    """Engines that are warm."""
    engines = [EngineProcess(gpu) for gpu in range(count)]
    try:
        for engine in engines:
            engine.next()
        yield engines
    finally:
        for engine in engines:
            engine.close()


def measure_together(engines: Sequence[EngineProcess]) -> float:
    """Output tokens/s of these at once: from the first that began to the last that ended."""
    for engine in engines:
        engine.begin()
    entries = [engine.next() for engine in engines]
    seconds = max(e["ended"] for e in entries) - min(e["began"] for e in entries)
    return sum(e["tokens"] for e in entries) / seconds


def compare_engines(engines: Sequence[EngineProcess], until_s: float) -> Iterator[dict[str, Any]]:
    """After each round what is known so far; at least one, and no more than the time allows."""
    alone: list[list[float]] = [[] for _ in engines]
    together: list[float] = []
    longest_s = 0.0
    while not together or (len(together) < MOST_ROUNDS and time.monotonic() + longest_s < until_s):
        began = time.monotonic()
        for place, engine in enumerate(engines):
            alone[place].append(measure_together([engine]))
        together.append(measure_together(engines))
        longest_s = max(longest_s, time.monotonic() - began)
        one = median(rate for rates in alone for rate in rates)
        yield {
            "engines": len(engines),
            "alone_tokens_per_s": alone,
            "together_tokens_per_s": together,
            "share_of_the_sum": median(together) / sum(map(median, alone)),
            "share_of_so_many_times_one": median(together) / (len(engines) * one),
        }


def main() -> None:
    if sys.argv[1] == WORKER:
        sys.path[:0] = [str(Path(__file__).resolve().parents[1])]
        serve_rounds()
        return
    import torch

    path, until_s = Path(sys.argv[1]), time.monotonic() + BUDGET_S
    count = int(sys.argv[2]) if len(sys.argv) > 2 else torch.cuda.device_count() or 2
    with started_engines(count) as engines:
        ready_s = time.monotonic() - (until_s - BUDGET_S)
        for found in compare_engines(engines, until_s):
            path.write_text(json.dumps({"ready_s": ready_s, **found}, indent=1))
    print(path.read_text(), flush=True)


if __name__ == "__main__":
    main()
