"""One rank of `scripts/bench finetune`: the usual script and ours, in one process, on one model.

Started by torchrun. Rank 0 writes a JSON line for each thing that is measured as soon as it is, so
that a benchmark that is cut off has told what it found.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[2]
WORKLOADS = SCRIPTS.parent / "workloads"
sys.path += [str(WORKLOADS), str(SCRIPTS)]

import torch  # noqa: E402
from bench_lib.models import SHAPES, qwen2  # noqa: E402
from bench_lib.rows import drawn, written  # noqa: E402
from bench_lib.timeline import Kernel, timeline  # noqa: E402

import orchestrate_kit as kit  # noqa: E402 - after its folder
from finetune.base.settings import Settings  # noqa: E402
from finetune.base.world import World, joined_world  # noqa: E402
from finetune.data.conversations import Example  # noqa: E402
from finetune.data.packing import Row, text_example  # noqa: E402
from finetune.model.lora import Trainable  # noqa: E402
from finetune.training.accounting import flop_per_token  # noqa: E402
from finetune.training.trainer import Trainer, learning_rate_at, shares  # noqa: E402

SIDES = ("usual", "usual, autocast", "usual, no checkpointing", "ours", "ours, fp8")
LEARNING_RATE = 2e-4
MICRO_BATCH = 2  # of the usual script


@dataclass(frozen=True, slots=True)
class Work:
    """What both sides do: rows of a global batch, each `length` tokens, all of them text."""

    settings: Settings
    world: World
    rows: list[Row]

    @property
    def tokens_per_step(self) -> int:
        return self.settings.rows_per_step(self.world.total) * self.settings.sequence_length


class Report:
    """JSON lines, by rank 0; also on its standard error, for who waits."""

    def __init__(self, path: Path, world: World) -> None:
        self._path, self._world = path, world

    def post(self, kind: str, **fields: Any) -> None:
        if self._world.is_main:
            line = json.dumps({"kind": kind, **fields}) + "\n"
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(line)
            sys.stderr.write(line)


class Usual:
    """The script that most people write: transformers, peft, DDP, AdamW. Weights are bf16 and
    adapters fp32, as peft makes them; `autocast` computes the adapters' products in bf16.
    """

    def __init__(
        self, model: Any, work: Work, *, checkpointing: bool = True, autocast: bool = False
    ) -> None:
        self.work, self.autocast = work, autocast
        self.model = model
        if checkpointing:
            options = {"use_reentrant": False}
            model.get_base_model().gradient_checkpointing_enable(options)
            model.enable_input_require_grads()
        self.parallel = model
        if work.world.size > 1:
            on = [work.world.device] if work.world.device.type == "cuda" else None
            self.parallel = torch.nn.parallel.DistributedDataParallel(model, device_ids=on)
        self.parameters = _trained(model)
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=_on_gpu(work)
        )

    def step(self, step: int) -> float:
        work = self.work
        size = work.settings.rows_per_step(work.world.total)
        rows = work.rows[(step - 1) * size : step * size]
        batches = shares(rows, work.world, MICRO_BATCH)
        self.model.train()
        total = torch.zeros((), device=work.world.device)
        for batch in batches:
            last = batch is batches[-1] or work.world.size == 1
            with nullcontext() if last else self.parallel.no_sync():
                total += self._backward(batch) / len(batches)
        torch.nn.utils.clip_grad_norm_(self.parameters, work.settings.max_grad_norm)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate_at(step, work.settings)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        work.world.sum(total)
        return float(total) / work.world.size

    def _backward(self, rows: Sequence[Row]) -> torch.Tensor:
        ids = torch.tensor([list(row[0].tokens) for row in rows]).to(self.work.world.device)
        share = (
            len(rows)
            * self.work.world.size
            / self.work.settings.rows_per_step(self.work.world.total)
        )
        kind = self.work.world.device.type
        with torch.autocast(kind, torch.bfloat16, enabled=self.autocast and kind == "cuda"):
            loss = self.parallel(input_ids=ids, labels=ids, use_cache=False).loss
        (loss * share).backward()
        out: torch.Tensor = loss.detach()
        return out

    def close(self) -> None:
        """Take away what was added to the model."""
        self.parallel = None
        self.optimiser.zero_grad(set_to_none=True)
        base = self.model.get_base_model()
        base.gradient_checkpointing_disable()


class Ours:
    """The workload's own trainer with the fused engine."""

    def __init__(self, model: Any, work: Work) -> None:
        tokenizer = type("Padding", (), {"pad_token_id": 0})
        trainable = Trainable(
            model=model, tokenizer=tokenizer, world=work.world, settings=work.settings
        )
        self.trainer = Trainer(trainable, work.rows)

    def step(self, step: int) -> float:
        return self.trainer.step(step).loss

    def close(self) -> None:
        """Nothing was added to the model."""
        self.trainer.prefetcher.close()


def main() -> None:
    options = _options()
    with joined_world("auto", 600) as world:
        report = Report(options.out, world)
        if options.memory_gib and world.device.type == "cuda":
            total = torch.cuda.get_device_properties(world.device).total_memory
            torch.cuda.set_per_process_memory_fraction(options.memory_gib * 2**30 / total)
        work = _work(options, world)
        model = qwen2(options.model, world.device)
        facts = _machine(world) | {"memory_limit_gib": options.memory_gib or None}
        report.post("machine", **facts, tokens_per_step=work.tokens_per_step)
        report.post("arithmetic", **_arithmetic(model))
        start = [p.detach().clone() for p in _trained(model)]
        for name, make in _sides(model, work):
            if name not in options.sides:
                continue
            _restore(model, start)
            _measure(name, make, work, options, report)
        report.post("end")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=list(SHAPES), default="tiny")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=8, help="of a step, for each rank")
    parser.add_argument("--micro-batch", type=int, default=2, help="of ours")
    parser.add_argument("--recompute", default="auto")
    parser.add_argument("--memory-gib", type=float, default=0.0)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--text", type=Path, help="train on the text of this folder's .py files")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["usual", "ours"])
    return parser.parse_args()


def _work(options: argparse.Namespace, world: World) -> Work:
    """Rows of text, or of words drawn at random from a few."""
    settings = replace(
        kit.parse(Settings, []),
        engine="fused",
        recompute=options.recompute,
        steps=options.steps,
        micro_batch=options.micro_batch,
        global_batch=options.rows * world.size,
        sequence_length=options.length,
        learning_rate=LEARNING_RATE,
        dtype="bf16" if world.device.type == "cuda" else "fp32",
    )
    count = options.steps * options.rows * world.size
    if options.text is None:
        found = drawn(count, options.length)
    else:
        found = written(options.text, count, options.length, SHAPES[options.model]["vocab_size"])
    return Work(settings, world, [(_text(words),) for words in found])


def _text(words: list[int]) -> Example:
    return text_example(words[:1], words[1:])


def _sides(model: Any, work: Work) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Ours last: it lays the model's matrices out anew."""
    yield "usual", lambda: Usual(model, work)
    yield "usual, autocast", lambda: Usual(model, work, autocast=True)
    yield "usual, no checkpointing", lambda: Usual(model, work, checkpointing=False)
    yield "ours", lambda: Ours(model, work)
    fp8 = replace(work, settings=replace(work.settings, fp8=True))
    yield "ours, fp8", lambda: Ours(model, fp8)


def _measure(
    name: str,
    make: Callable[[], Any],
    work: Work,
    options: argparse.Namespace,
    report: Report,
) -> None:
    """Steps with their times; the first ones warm up and compile."""
    device = work.world.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    side = make()
    engine = getattr(getattr(side, "trainer", None), "engine", None)
    losses, seconds = [], []
    for step in range(1, options.steps + 1):
        profiled = options.profile and step == options.steps
        _ready(work)
        began = time.perf_counter()
        with _profiled(name, work, report) if profiled else nullcontext():
            losses.append(side.step(step))
            _ready(work)
        seconds.append(time.perf_counter() - began)
    timed = seconds[options.warmup : len(seconds) - (1 if options.profile else 0)]
    rates = [work.tokens_per_step / took / work.world.size for took in timed]
    report.post(
        "side",
        name=name,
        engine=getattr(engine, "description", ""),
        tokens_per_s_per_gpu=statistics.median(rates),
        lowest=min(rates),
        highest=max(rates),
        steps=len(rates),
        peak_bytes=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        losses=losses,
    )
    side.close()
    del side


def _ready(work: Work) -> None:
    if _on_gpu(work):
        torch.cuda.synchronize()
    work.world.barrier()


def _on_gpu(work: Work) -> bool:
    return work.world.device.type == "cuda"


def _restore(model: Any, start: list[torch.Tensor]) -> None:
    with torch.no_grad():
        for parameter, value in zip(_trained(model), start, strict=True):
            parameter.copy_(value)


def _trained(model: Any) -> list[torch.nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@contextmanager
def _profiled(name: str, work: Work, report: Report) -> Iterator[None]:
    """Where one step's time goes on the device: shares of its kernels, and what lies between.

    Only kernels are recorded on a GPU: recording the host's calls would slow down the host, and
    show gaps that a step does not have.
    """
    kinds = torch.profiler.ProfilerActivity
    activity = kinds.CUDA if _on_gpu(work) else kinds.CPU
    with torch.profiler.profile(activities=[activity]) as profile:
        yield
    kernels = _kernels(profile.events() or [], on_gpu=_on_gpu(work))
    found = timeline(kernels)
    totals: dict[str, list[float]] = {}
    for kernel in kernels:
        totals.setdefault(kernel.name, []).append((kernel.end - kernel.start) / 1e6)
    slowest = sorted(totals.items(), key=lambda item: -sum(item[1]))[:25]
    report.post(
        "profile",
        name=name,
        tokens=work.tokens_per_step / work.world.size,
        span_s=found.span,
        busy_s=found.busy,
        exposed_s=found.exposed,
        seconds=found.by_class,
        slowest=[[round(sum(each), 4), len(each), key[:120]] for key, each in slowest],
    )


def _kernels(events: Iterable[Any], *, on_gpu: bool) -> list[Kernel]:
    """What ran on the GPU; on a CPU, operations that do most of their work themselves. Regions that
    a program named are left out: they appear beside the kernels that they are made of.
    """

    def counts(event: Any) -> bool:
        if event.is_user_annotation:
            return False
        if on_gpu:
            return str(event.device_type).endswith("CUDA")
        return bool(2 * event.self_cpu_time_total > event.cpu_time_total)

    return [
        Kernel(event.name, event.time_range.start, event.time_range.end)
        for event in events
        if counts(event)
    ]


def _machine(world: World) -> dict[str, Any]:
    if world.device.type != "cuda":
        return {"device": "CPU", "torch": torch.__version__, "ranks": world.size}
    properties = torch.cuda.get_device_properties(world.device)
    return {
        "device": properties.name,
        "memory_bytes": properties.total_memory,
        "torch": torch.__version__,
        "ranks": world.size,
    }


def _arithmetic(model: Any) -> dict[str, Any]:
    return {
        "flop_per_token": flop_per_token(model),
        "product_tflops": _product_tflops() if torch.cuda.is_available() else None,
    }


def _product_tflops(size: int = 8192, repeats: int = 20) -> float:
    """What a square bf16 product reaches on this device, in the same run."""
    left, right = (torch.randn(size, size, device="cuda").bfloat16() for _ in range(2))
    for _ in range(5):
        torch.mm(left, right)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(repeats):
        torch.mm(left, right)
    end.record()
    end.synchronize()
    seconds: float = begin.elapsed_time(end) / 1e3
    return 2 * size**3 * repeats / seconds / 1e12


if __name__ == "__main__":
    main()
