#!/usr/bin/env python3
"""One process of `scripts/gpu_check model`: measures some of its points, one after another.

    python3 model_worker.py --out model.jsonl --points 0 1 2 --until UNIX_TIME

Alone it uses the first GPU that it sees; under torchrun each rank has one, and all measure the same
points. A JSON line is appended for each point as soon as it is measured; a point that fails, or for
which no time is left, says so in its line. Weights are random and made on the GPU. Without a GPU
each point is a tiny one of its kind, which shows that this works and no more.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[1]
sys.path += [str(SCRIPTS.parent / "workloads"), str(SCRIPTS)]

import torch  # noqa: E402
from bench_lib.finetuning.models import SHAPES, qwen2  # noqa: E402
from bench_lib.finetuning.rows import drawn  # noqa: E402
from bench_lib.trainers.energy import Energy  # noqa: E402
from bench_lib.trainers.ours import Ours  # noqa: E402
from bench_lib.trainers.work import Work  # noqa: E402

import orchestrate_kit as kit  # noqa: E402 - after its folder
from finetune.base.settings import Settings  # noqa: E402
from finetune.base.world import World, joined_world  # noqa: E402
from finetune.data.packing import Row, text_example  # noqa: E402
from gpu_check_lib.engine import asked  # noqa: E402
from gpu_check_lib.model_points import EAGER, FINETUNE, POINTS, Point, by_model  # noqa: E402
from large.measuring import Generation  # noqa: E402
from large.settings import Settings as LargeSettings  # noqa: E402
from orchestrate_models.loading import ModelOptions, load_model  # noqa: E402
from orchestrate_models.ranks import Ranks  # noqa: E402
from orchestrate_models.shapes import model_config  # noqa: E402
from orchestrate_serving.builtin.model import Model  # noqa: E402
from orchestrate_serving.builtin.options import EngineOptions  # noqa: E402
from orchestrate_serving.builtin.weights import random_weights  # noqa: E402

WARMUP = 3
MEASURED_S = 2.2  # of steps; the energy counter moves every 0.1 s
FEWEST, MOST = 4, 40
POINT_S = 8.0  # a point is not begun with less time than this
LORA_RANK = 64
SIZES = (0.8, 1.2, 1.0, 0.9, 1.1)  # of texts in a row, by their mean
TINY: dict[str, Any] = {"sequence": 32, "batch": 2, "answer": 8}
TINY_TEXT = 12


def main() -> None:
    options = _options()
    with joined_world("auto", 120) as world:
        energy = Energy(world.local_rank)
        for (kind, shape), numbers in by_model(options.points).items():
            options.left_bytes = _on_gpu(torch.cuda.memory_allocated, world, 0)
            model = _model(kind, shape, world)
            for number in numbers:
                _measure(number, model, world, energy, options)
            del model
            _empty(world)  # the next one's peak must not contain this one


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--points", type=int, nargs="+", required=True)
    parser.add_argument("--until", type=float, required=True)
    return parser.parse_args()


def _model(kind: str, shape: str, world: World) -> Any:
    """What points of this kind and shape run on."""
    on_gpu = world.device.type == "cuda"
    shape = shape if on_gpu else "tiny"
    if kind == FINETUNE:
        return qwen2(shape, world.device)
    if kind == EAGER:
        return _eager_model(shape, world)
    from transformers import Qwen2Config

    config = Qwen2Config(**SHAPES[shape], tie_word_embeddings=False)
    dtype = torch.bfloat16 if on_gpu else torch.float32
    weights = random_weights(config, dtype, world.device, 0)
    return Model(name=shape, weights=weights, tokenizer=None, ends=())


def _measure(
    number: int, model: Any, world: World, energy: Energy, options: argparse.Namespace
) -> None:
    """One point's line. All ranks agree on whether there is time for it."""
    point = POINTS[number]
    late = world.any(time.time() + POINT_S > options.until)
    began = time.monotonic()
    try:
        if late:
            found: dict[str, Any] = {"error": "no time was left"}
        elif point.kind == FINETUNE:
            found = _finetune(_scaled(point, world), model, world, energy)
        elif point.kind == EAGER:
            found = _eager(_scaled(point, world), model, world, energy)
        else:
            found = _inference(_scaled(point, world), model, world, energy)
    except Exception as error:
        traceback.print_exc()
        found = {"error": f"{type(error).__name__}: {error}"}
        if world.size > 1:  # the other ranks wait in a collective: none can go on
            _write(options.out, number, point, world, found)
            raise
    if "peak_bytes" in found:  # without what earlier points of this process left behind
        found["peak_bytes"] -= options.left_bytes
        found["left_bytes"] = options.left_bytes
    found["took_s"] = time.monotonic() - began
    if world.is_main:
        _write(options.out, number, point, world, found)


def _write(path: Path, number: int, point: Point, world: World, found: dict[str, Any]) -> None:
    on_gpu = world.device.type == "cuda"
    device = torch.cuda.get_device_name(world.device) if on_gpu else "cpu"
    about = {"number": number, **point.record(), "lora_rank": LORA_RANK, "tied": False}
    line = json.dumps(about | {"device": device, "torch": torch.__version__} | found)
    with path.open("a", encoding="utf-8") as stream:
        stream.write(line + "\n")
    print(f"== {line}", flush=True)


def _scaled(point: Point, world: World) -> Point:
    if world.device.type == "cuda":
        return point
    return replace(point, **TINY, text=min(point.text, TINY_TEXT))


# ---- fine-tuning -------------------------------------------------------------------------------


def _finetune(point: Point, model: Any, world: World, energy: Energy) -> dict[str, Any]:
    """Median, least and most seconds of a step; tokens/s of all ranks; peak of any rank."""
    ours = Ours(model, _work(point, world))
    try:
        warmed = _step_times(ours, world, range(1, WARMUP + 1))
        count = min(MOST, max(FEWEST, round(MEASURED_S / world.max(warmed[-1]))))
        _reset_peak(world)
        held = _on_gpu(torch.cuda.memory_allocated, world, 0)
        before, began = energy.joules(), time.monotonic()
        times = _step_times(ours, world, range(WARMUP + 1, WARMUP + 1 + count))
        seconds, after = time.monotonic() - began, energy.joules()
        tokens = point.batch * point.accumulation * point.sequence * world.size
        return {
            "step_s": statistics.median(times),
            "step_s_least": min(times),
            "step_s_most": max(times),
            "steps": count,
            "tokens_per_s": tokens / statistics.median(times),
            "peak_bytes": world.max(_peak(world)),
            "held_bytes": held,
            "watts": _watts(before, after, seconds),
            "engine": ours.trainer.engine.description,
        }
    finally:
        ours.close()
        del ours
        _empty(world)


def _work(point: Point, world: World) -> Work:
    """Rows of one step, without padding, which every step sees again."""
    settings = replace(
        kit.parse(Settings, []),
        engine="fused",
        steps=WARMUP + MOST,
        micro_batch=point.batch,
        global_batch=point.batch * point.accumulation * world.size,
        sequence_length=point.sequence,
        lora_rank=LORA_RANK,
        learning_rate=1e-5,
        dtype="bf16" if world.device.type == "cuda" else "fp32",
    )
    rows = [_row(words, point) for words in drawn(settings.global_batch, point.sequence)]
    return Work(settings, world, rows * settings.steps)


def _row(words: list[int], point: Point) -> Row:
    """One text, or several of about `point.text` tokens; of each the last tokens are targets."""
    sizes, left = itertools.cycle(SIZES), len(words)
    texts: list[Any] = []
    while left:
        size = min(left, round(next(sizes) * point.text)) if point.text else left
        part, left = words[len(words) - left :][:size], left - size
        asked = max(1, round(size * (1 - point.targets)))
        texts.append(text_example(part[:asked], part[asked:]))
    return tuple(texts)


def _step_times(ours: Ours, world: World, steps: range) -> list[float]:
    """Seconds of each step, between barriers."""
    times = []
    for step in steps:
        world.synchronize()
        world.barrier()
        began = time.perf_counter()
        ours.step(step)
        world.synchronize()
        times.append(time.perf_counter() - began)
    return times


# ---- inference ---------------------------------------------------------------------------------


def _inference(point: Point, model: Model, world: World, energy: Energy) -> dict[str, Any]:
    """All requests at once, twice: the first time warms up. `step_s` is the median time from token
    to token when all prompts are done, `first_token_s` when the last one is.
    """
    vocabulary = model.weights.shape.vocabulary
    generator = torch.Generator().manual_seed(1)
    size = (point.batch, point.sequence)
    prompts = torch.randint(0, vocabulary, size, generator=generator).tolist()
    context = point.sequence + point.answer
    _reset_peak(world)
    with asked(model, EngineOptions(slots=point.batch, context=context)) as engine:
        engine.answers(prompts, point.answer)
        repeats = _repeats(engine.seconds)
        before, began = energy.joules(), time.monotonic()
        rounds = [_one_round(engine, prompts, point) for _ in range(repeats)]
        seconds, after = time.monotonic() - began, energy.joules()
        middle = sorted(rounds, key=lambda each: each["seconds"])[len(rounds) // 2]
        return {
            **middle,
            "tokens_per_s": point.batch * point.answer / middle["seconds"],
            "rounds": repeats,
            "peak_bytes": _peak(world),
            "watts": _watts(before, after, seconds),
        }


def _repeats(seconds: float) -> int:
    return max(2, min(7, round(MEASURED_S / seconds)))


def _one_round(engine: Any, prompts: list[list[int]], point: Point) -> dict[str, float]:
    engine.answers(prompts, point.answer)
    first = max(times[0] for times in engine.times)
    moments = sorted({moment for times in engine.times for moment in times if moment >= first})
    gaps = [late - early for early, late in itertools.pairwise(moments)]
    return {
        "seconds": engine.seconds,
        "step_s": statistics.median(gaps),
        "first_token_s": first,
    }


# ---- transformers' own forward pass --------------------------------------------------------------


def _eager_model(shape: str, world: World) -> Any:
    """As the workload `large` makes it."""
    precision = "bf16" if world.device.type == "cuda" else "fp32"
    options = ModelOptions(config=model_config(shape, ""), precision=precision)
    alone = Ranks(rank=0, size=1, local_size=1, device=world.device, control=None)
    return load_model(options, alone)


@torch.inference_mode()
def _eager(point: Point, model: Any, world: World, energy: Energy) -> dict[str, Any]:
    """Prefill and decode of the workload `large`, median repeats; the first one warms up."""
    settings = LargeSettings(
        shape=point.shape,
        model="",
        precision="bf16",
        batch=point.batch,
        prompt_tokens=point.sequence,
        new_tokens=point.answer,
        attention="sdpa",
        compile=False,
        tp=1,
        warmup=1,
        repeats=FEWEST,
        seed=0,
        device="auto",
    )
    generation = Generation(model, settings, world.device)
    prefill_s, decode_s = generation.run()
    _reset_peak(world)
    before, began = energy.joules(), time.monotonic()
    repeats = max(3, min(MOST, round(MEASURED_S / (prefill_s + decode_s))))
    times = [generation.run() for _ in range(repeats)]
    seconds, after = time.monotonic() - began, energy.joules()
    prefill_s, decode_s = (statistics.median(each) for each in zip(*times, strict=True))
    return {
        "seconds": prefill_s + decode_s,
        "step_s": decode_s / (point.answer - 1),
        "first_token_s": prefill_s,
        "tokens_per_s": point.batch * point.answer / (prefill_s + decode_s),
        "repeats": repeats,
        "peak_bytes": _peak(world),
        "watts": _watts(before, after, seconds),
    }


# ---- the device --------------------------------------------------------------------------------


def _on_gpu(call: Callable[..., Any], world: World, otherwise: Any = None) -> Any:
    return call(world.device) if world.device.type == "cuda" else otherwise


def _reset_peak(world: World) -> None:
    _on_gpu(torch.cuda.reset_peak_memory_stats, world)


def _peak(world: World) -> float:
    """Bytes; 0 without a GPU, where no allocator counts."""
    return float(_on_gpu(torch.cuda.max_memory_allocated, world, 0))


def _empty(world: World) -> None:
    gc.collect()
    _on_gpu(lambda _: torch.cuda.empty_cache(), world)


def _watts(before: float | None, after: float | None, seconds: float) -> float | None:
    return None if before is None or after is None else (after - before) / seconds


if __name__ == "__main__":
    main()
