#!/usr/bin/env python3
"""Two ranks that hold frozen weights together look for their micro-batch, and rank 1 alone runs out
of memory: with two rows of a pass, then with one; after each, both train a step.

    python3 scripts/gpu_check_lib/short_rank.py OUT.json

One GPU is enough: a different NCCL_HOSTID for each rank lets NCCL take the same one twice. Rank 1's
memory is limited by torch's own allocator, so that the failure is the allocator's, too.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[1]
sys.path += [str(SCRIPTS), str(SCRIPTS.parent / "workloads")]

RANKS = 2
LIMIT_S = 150.0  # of all; ranks wait for each other for COLLECTIVE_S
COLLECTIVE_S = 40
LENGTH = 4096
ROWS = 8  # in a step of both
SHAPE = "qwen2-0.5b"


def main() -> int:
    """Start the ranks, and tell what they found: 0 if no rank was left waiting."""
    out = Path(sys.argv[1]).resolve()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="short-rank-") as scratch:
        base = Path(scratch, "base")
        write_base(base)
        ranks = [
            start(rank, base, port, Path(scratch)) for port in [free_port()] for rank in (0, 1)
        ]
        codes = [wait(rank, began + LIMIT_S) for rank in ranks]
        told = [Path(scratch, f"rank-{rank}.json") for rank in range(RANKS)]
        found = [json.loads(path.read_text()) if path.exists() else None for path in told]
        words = [Path(scratch, f"rank-{rank}.log").read_text()[-2000:] for rank in range(RANKS)]
    record = {"codes": codes, "ranks": found, "seconds": round(time.monotonic() - began, 1)}
    if any(codes):
        record["last_words"] = words
    out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))
    return int(any(codes))


def write_base(folder: Path) -> None:
    """Random weights, and the small base's tokenizer."""
    from bench_lib.finetuning.models import SHAPES

    from gpu_check_lib.gpus import has_gpus
    from gpu_check_lib.random_models import TINY, write_random_model

    write_random_model(SHAPES[SHAPE if has_gpus() else "tiny"], folder)
    for path in TINY.iterdir():
        if "token" in path.name or path.suffix == ".jinja":
            shutil.copy(path, folder)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(rank: int, base: Path, port: int, folder: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(RANKS),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "NCCL_HOSTID": f"short-rank-{rank}",
        "NCCL_SOCKET_IFNAME": "lo",
    }
    argv = [sys.executable, __file__, "--rank", str(base), str(folder / f"rank-{rank}.json")]
    with (folder / f"rank-{rank}.log").open("wb") as log:
        return subprocess.Popen(argv, env=environment, stdout=log, stderr=log)


def wait(rank: subprocess.Popen[bytes], deadline: float) -> int | str:
    try:
        return rank.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        rank.kill()
        rank.wait()
        return "left waiting"


class Limited:
    """A device's memory, of which passes get no more than `most` bytes; remembers their peaks."""

    def __init__(self, inner: Any, device: Any) -> None:
        self._inner, self._device = inner, device
        self.most: int | None = None
        self.peaks: list[float] = []

    def held(self) -> float:
        return float(self._inner.held())

    def free(self) -> float:
        return float(self._inner.free())

    def peak_of(self, work: Callable[[], None]) -> float:
        import torch

        total = torch.cuda.get_device_properties(self._device).total_memory
        torch.cuda.empty_cache()
        if self.most is not None:
            torch.cuda.set_per_process_memory_fraction(self.most / total, self._device)
        try:
            self.peaks.append(float(self._inner.peak_of(work)))
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, self._device)
        return self.peaks[-1]


def run_rank(base: str, out: Path) -> None:
    """What one rank finds: without a limit; then rank 1 has room for one row, then for none."""
    import orchestrate_kit as kit
    from finetune.base.settings import Settings
    from finetune.base.world import joined_world
    from finetune.data.packing import text_example
    from finetune.model.lora import prepare
    from finetune.training.batch_size_search import RowTooLong, find_batch_size, memory_of
    from finetune.training.trainer import Trainer

    with joined_world("cuda", timeout_s=COLLECTIVE_S) as world:
        argv = [f"--model={base}", "--engine=fused", "--shard=on", "--recompute=none", "--steps=9"]
        argv += [f"--global-batch={ROWS}", f"--sequence-length={LENGTH}", "--dtype=bf16"]
        rows = [(text_example([7], [5] * (LENGTH - 1)),) for _ in range(9 * ROWS)]
        trainer = Trainer(prepare(kit.parse(Settings, argv), world), rows)
        memory = Limited(memory_of(world.device), world.device)
        found: list[dict[str, Any]] = []
        held = memory.held()
        for step, fitting in enumerate((2, 1, 0), start=1):
            if world.rank == 1 and fitting < len(memory.peaks):
                below = [held, *memory.peaks]
                memory.most = int((below[fitting] + below[fitting + 1]) / 2)
            began = time.monotonic()
            try:
                told = f"{find_batch_size(trainer, memory).rows} rows"
            except RowTooLong as error:
                told = f"{type(error).__name__}: {error}"
            memory.peaks = memory.peaks[:2]
            took = time.monotonic() - began
            loss = trainer.step(step).loss
            found.append({"fitting": fitting, "told": told, "seconds": took, "loss_after": loss})
            out.write_text(json.dumps(found))


if __name__ == "__main__":
    if sys.argv[1] == "--rank":
        run_rank(sys.argv[2], Path(sys.argv[3]))
    else:
        sys.exit(main())
