"""One rank of `scripts/bench finetune`: trainers in turn, in one process, on one model.

Started by torchrun. Rank 0 writes a JSON line for each thing that is measured as soon as it is, so
that a benchmark that is cut off has told what it found.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[2]
WORKLOADS = SCRIPTS.parent / "workloads"
sys.path += [str(WORKLOADS), str(SCRIPTS)]

if "unsloth" in sys.argv:
    from bench_lib.trainers.with_unsloth import prepare_import

    prepare_import()

import torch  # noqa: E402
from bench_lib.finetuning.models import SHAPES, qwen2, qwen2_on_host  # noqa: E402
from bench_lib.finetuning.rows import drawn, written  # noqa: E402
from bench_lib.finetuning.timeline import Kernel, gaps, timeline  # noqa: E402
from bench_lib.trainers.bound import bound_of  # noqa: E402
from bench_lib.trainers.energy import Energy  # noqa: E402
from bench_lib.trainers.ours import Ours  # noqa: E402
from bench_lib.trainers.tuned import Tuned  # noqa: E402
from bench_lib.trainers.usual import Usual  # noqa: E402
from bench_lib.trainers.with_unsloth import Unsloth, put_folder  # noqa: E402
from bench_lib.trainers.work import LEARNING_RATE, Side, Work, trained  # noqa: E402

import orchestrate_kit as kit  # noqa: E402 - after its folder
from finetune.base.settings import Settings  # noqa: E402
from finetune.base.world import World, joined_world  # noqa: E402
from finetune.data.conversations import Example  # noqa: E402
from finetune.data.packing import text_example  # noqa: E402
from finetune.fused.memory import Extent, Placement  # noqa: E402
from finetune.fused.sharded import ShardGroup, join_group, nodes_of  # noqa: E402
from finetune.training.accounting import flop_per_token, peak_flops  # noqa: E402

SIDES = (
    "usual",
    "usual, autocast",
    "usual, no checkpointing",
    "tuned",
    "tuned, liger's kernels",
    "unsloth",
    "ours",
    "ours, fp8",
)
Make = Callable[[], Side]


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


def main() -> None:
    options = _options()
    with joined_world("auto", 600) as world:
        report = Report(options.out, world)
        if options.memory_gib and world.device.type == "cuda":
            total = torch.cuda.get_device_properties(world.device).total_memory
            torch.cuda.set_per_process_memory_fraction(options.memory_gib * 2**30 / total)
        work = _work(options, world)
        facts = _machine(world) | {"memory_limit_gib": options.memory_gib or None}
        report.post("machine", **facts, tokens_per_step=work.tokens_per_step)
        if options.sides == ["unsloth"]:
            make = partial(Unsloth, options.model, options.folder, options.lora_rank, work)
            _measured("unsloth", make, work, options, report)
        else:
            _in_turn(work, options, report)
        report.post("end")


def _in_turn(work: Work, options: argparse.Namespace, report: Report) -> None:
    """All sides on one model, each from the same adapter."""
    group = _group(work.world) if options.shared else None
    make_model = qwen2 if group is None else qwen2_on_host
    model = make_model(options.model, work.world.device, rank=options.lora_rank)
    report.post("arithmetic", **_arithmetic(model, work))
    start = [p.detach().clone() for p in trained(model)]
    if options.folder is not None and work.world.is_main:
        put_folder(model, start, options.lora_rank, options.folder)
    for name, make in _sides(model, work, group):
        if name not in options.sides:
            continue
        with torch.no_grad():
            for parameter, value in zip(trained(model), start, strict=True):
                parameter.copy_(value)
        _measured(name, make, work, options, report)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=list(SHAPES), default="tiny")
    parser.add_argument("--lora-rank", type=int, default=64)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--rows", type=int, default=8, help="of a step, for each rank")
    parser.add_argument("--micro-batch", type=int, default=2, help="of ours")
    parser.add_argument("--recompute", default="auto")
    parser.add_argument("--memory-gib", type=float, default=0.0)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--bound", action="store_true", help="products and attention alone, too")
    parser.add_argument("--shared", action="store_true", help="ours: frozen weights over all ranks")
    parser.add_argument(
        "--folder", type=Path, help="where unsloth finds what it needs of another run"
    )
    parser.add_argument("--text", type=Path, help="train on the text of this folder's .py files")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=["usual", "ours"])
    found = parser.parse_args()
    if "unsloth" in found.sides and (len(found.sides) > 1 or found.folder is None):
        parser.error(
            "unsloth patches transformers for all: alone, with the --folder of another run"
        )
    if found.shared and set(found.sides) - {"ours"}:
        parser.error("--shared is of ours alone: the others hold all weights on each rank")
    return found


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
        lora_rank=options.lora_rank,
        learning_rate=LEARNING_RATE,
        dtype="bf16" if world.device.type == "cuda" else "fp32",
        shard="on" if options.shared else "off",
    )
    count = options.steps * options.rows * world.size
    if options.text is None:
        found = drawn(count, options.length)
    else:
        found = written(options.text, count, options.length, SHAPES[options.model]["vocab_size"])
    return Work(settings, world, [(_text(words),) for words in found])


def _text(words: list[int]) -> Example:
    return text_example(words[:1], words[1:])


def _group(world: World) -> ShardGroup:
    nodes = nodes_of(world.gather(world.local_rank))
    return join_group(Placement(Extent.ALL, "asked for"), nodes, world.rank, 600)


def _sides(model: Any, work: Work, group: ShardGroup | None) -> Iterator[tuple[str, Make]]:
    """Ours last: it lays the model's matrices out anew."""
    yield "usual", lambda: Usual(model, work)
    yield "usual, autocast", lambda: Usual(model, work, autocast=True)
    yield "usual, no checkpointing", lambda: Usual(model, work, checkpointing=False)
    yield "tuned", lambda: Tuned(model, work)
    yield "tuned, liger's kernels", lambda: Tuned(model, work, pieces=True)
    yield "ours", lambda: Ours(model, work, group)
    fp8 = replace(work, settings=replace(work.settings, fp8=True))
    yield "ours, fp8", lambda: Ours(model, fp8)


def _measured(
    name: str, make: Make, work: Work, options: argparse.Namespace, report: Report
) -> None:
    """A side that fails, alone on its GPU, does not take the others with it."""
    try:
        _measure(name, make, work, options, report)
    except (ImportError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        if work.world.size > 1:
            raise
        report.post("failed", name=name, reason=f"{type(error).__name__}: {error}"[:2000])


def _measure(
    name: str, make: Make, work: Work, options: argparse.Namespace, report: Report
) -> None:
    """Steps with their times, and what products and attention take alone, if asked for."""
    device = work.world.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    side = make()
    try:
        report.post("side", name=name, **_steps(name, side, work, options, report))
        if options.bound and isinstance(side, Ours):
            found = bound_of(side.engine.model, side.work)
            report.post(
                "bound",
                name=name,
                products_s=found.products_s,
                attention_s=found.attention_s,
                tokens_per_s_per_gpu=work.tokens_per_step / work.world.size / found.seconds,
            )
    finally:
        side.close()


def _steps(
    name: str, side: Side, work: Work, options: argparse.Namespace, report: Report
) -> dict[str, Any]:
    """The first ones warm up and compile; a last one may be profiled."""
    device = work.world.device
    losses: list[float] = []
    seconds: list[float] = []
    energy = Energy(work.world.local_rank)
    before = after = None
    last = options.steps - (1 if options.profile else 0)
    for step in range(1, options.steps + 1):
        work.ready()
        if step == options.warmup + 1:
            before = energy.joules()
        began = time.perf_counter()
        with _profiled(name, work, report) if step > last else nullcontext():
            losses.append(finite_loss(side.step(step), step))
            work.ready()
        seconds.append(time.perf_counter() - began)
        if step == last:
            after = energy.joules()
    timed = seconds[options.warmup : last]
    rates = [work.tokens_per_step / took / work.world.size for took in timed]
    tokens = len(rates) * work.tokens_per_step / work.world.size
    spent = None if before is None or after is None else after - before
    return {
        "engine": side.description,
        "lora_rank": options.lora_rank,
        "tokens_per_s_per_gpu": statistics.median(rates),
        "lowest": min(rates),
        "highest": max(rates),
        "steps": len(rates),
        "first_s": round(sum(seconds[: options.warmup]), 1),
        "peak_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "watts": spent / sum(timed) if spent else None,
        "tokens_per_joule": tokens / spent if spent else None,
        "losses": losses,
    }


def finite_loss(loss: float, step: int) -> float:
    """What is computed of values that are none has no rate worth telling: it is faster, too."""
    if not math.isfinite(loss):
        raise ValueError(f"the loss is {loss} at step {step}")
    return loss


@contextmanager
def _profiled(name: str, work: Work, report: Report) -> Iterator[None]:
    """Where one step's time goes on the device: shares of its kernels, and what lies between.

    Only kernels are recorded on a GPU: recording the host's calls would slow down the host, and
    show gaps that a step does not have.
    """
    kinds = torch.profiler.ProfilerActivity
    activity = kinds.CUDA if work.on_gpu else kinds.CPU
    with torch.profiler.profile(activities=[activity]) as profile:
        yield
    kernels = _kernels(profile.events() or [], on_gpu=work.on_gpu)
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
        gaps=[[round(us / 1e6, 4), after[:60], before[:60]] for us, after, before in gaps(kernels)],
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


def _arithmetic(model: Any, work: Work) -> dict[str, Any]:
    device = work.world.device
    on_gpu = device.type == "cuda"
    return {
        "flop_per_token": flop_per_token(model),
        "product_tflops": _product_tflops() if on_gpu else None,
        "peak_flops": peak_flops(torch.cuda.get_device_name(device)) if on_gpu else None,
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
