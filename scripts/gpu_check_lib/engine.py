#!/usr/bin/env python3
"""The built-in engine on this machine's first GPU: is it right, how fast, for how much energy.

    python3 scripts/gpu_check_lib/engine.py engine.json [--peer] [--only SECTION,...]

A model of Qwen2-7B's shape gets random weights on the GPU, so nothing is downloaded. Each section
stands for itself: one that fails says so in its place. ``--peer`` adds transformers' own continuous
batching on the same prompts; ``--only stream,offline`` measures these alone. Without a GPU the same
sections run on a small model.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "workloads"))

import torch
from bench_lib.finetuning.models import SHAPES

from gpu_check_lib.engine_report import Report
from orchestrate_serving.builtin.decoder import Cache, decode
from orchestrate_serving.builtin.engine import BatchingEngine, Update
from orchestrate_serving.builtin.model import Model, load_model, locate_model
from orchestrate_serving.builtin.options import AUTO, TORCH, EngineOptions, Tile
from orchestrate_serving.builtin.slots import Request
from orchestrate_serving.builtin.weights import Weights, random_weights
from orchestrate_serving.words import generate_text

ON_GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if ON_GPU else "cpu")
ANSWER_S = 60.0
TILES = (
    Tile(8, 512, 4, 4),
    Tile(8, 512, 4, 1),
    Tile(16, 512, 8, 3),
    Tile(4, 512, 2, 4),
    Tile(16, 256, 4, 4),
    Tile(4, 1024, 4, 4),
)
TILES_S = 18.0  # compiling a kernel takes seconds on a slow processor
REPEATS = 3


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The model's shape, and how much is asked of it."""

    shape: dict[str, Any]
    dtype: torch.dtype
    requests: int
    prompt: int
    answer: int
    long_answer: int
    batches: tuple[int, ...]


LARGE = Scale(
    shape={**SHAPES["qwen2-7b"], "tie_word_embeddings": False},
    dtype=torch.bfloat16,
    requests=512,
    prompt=128,
    answer=128,
    long_answer=256,
    batches=(8, 32, 128),
)
SMALL = Scale(
    shape={
        "vocab_size": 512,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": False,
    },
    dtype=torch.float32,
    requests=16,
    prompt=24,
    answer=8,
    long_answer=16,
    batches=(4,),
)


class Asked:
    """One engine with its requests: when each token came, in seconds since the first request."""

    def __init__(self, model: Model, options: EngineOptions) -> None:
        self._engine = BatchingEngine(model, options, self._take)
        began = time.perf_counter()
        self._engine.start()
        self.prepared_s = time.perf_counter() - began

    def answers(self, prompts: Sequence[Sequence[int]], length: int) -> list[list[int]]:
        """Answer all of these at once; ``times`` and ``seconds`` are of this call then."""
        self._tokens: list[list[int]] = [[] for _ in prompts]
        self.times: list[list[float]] = [[] for _ in prompts]
        self._left = len(prompts)
        self._error = ""
        self._done = threading.Event()
        self._began = time.perf_counter()
        for number, prompt in enumerate(prompts):
            self._engine.submit(number, Request(tokens=tuple(prompt), max_tokens=length))
        if not self._done.wait(ANSWER_S) or self._error:
            raise RuntimeError(self._error or f"no answer within {ANSWER_S:g} s")
        self.seconds = time.perf_counter() - self._began
        return self._tokens

    def close(self) -> None:
        """Free the cache."""
        self._engine.close()
        del self._engine

    def _take(self, updates: list[Update]) -> None:
        now = time.perf_counter() - self._began
        for update in updates:
            self._tokens[update.number].extend(update.tokens)
            self.times[update.number].extend(now for _ in update.tokens)
            self._left -= bool(update.finish)
            self._error = self._error or update.error
        if not self._left or self._error:
            self._done.set()


@contextmanager
def asked(model: Model, options: EngineOptions) -> Iterator[Asked]:
    """An engine that is closed at the end, with its memory free."""
    one = Asked(model, options)
    try:
        yield one
    finally:
        one.close()
        if ON_GPU:
            torch.cuda.empty_cache()


def energy_j() -> float | None:
    """The GPU's own counter since its driver was loaded; it moves every 100 ms."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
    except Exception:  # noqa: BLE001 - no library, no driver, no such counter: no figure
        return None


def prompts_of(scale: Scale, count: int) -> list[list[int]]:
    """Random tokens, the same in each run."""
    generator = torch.Generator().manual_seed(1)
    size = (count, scale.prompt)
    drawn: list[list[int]] = torch.randint(
        0, scale.shape["vocab_size"], size, generator=generator
    ).tolist()
    return drawn


def check_tokens() -> dict[str, Any]:
    """Greedy answers in fp32 are those of transformers' ``generate``, in company and alone."""
    from transformers import AutoModelForCausalLM

    model = load_model("", dtype="fp32", device=DEVICE.type)
    texts = [generate_text(index, seed=1, words=40) for index in range(8)]
    prompts = [model.tokenizer(text)["input_ids"] for text in texts]
    with asked(model, EngineOptions(slots=5, context=512)) as engine:
        together = engine.answers(prompts, 24)
        alone = engine.answers(prompts[:1], 24)
    theirs: Any = AutoModelForCausalLM.from_pretrained(locate_model(""), dtype=torch.float32)
    theirs.to(DEVICE).eval()
    answers = [
        theirs.generate(torch.tensor([prompt], device=DEVICE), max_new_tokens=24, do_sample=False)
        for prompt in prompts
    ]
    wanted = [
        answer[0, len(prompt) :].tolist() for answer, prompt in zip(answers, prompts, strict=True)
    ]
    return {"equal": together == wanted, "equal_alone": alone == wanted[:1]}


@torch.inference_mode()
def check_kernels(config: Any, scale: Scale) -> dict[str, Any]:
    """Largest difference between Triton's step and torch's, by the spread of the logits."""
    from orchestrate_serving.builtin import fused_decode

    config.num_hidden_layers = 2
    weights = random_weights(config, scale.dtype, DEVICE, 0)
    found = {}
    for rows in (1, 5, 300):
        caches = [Cache(weights, rows, 320) for _ in range(2)]
        for name in ("keys", "values"):
            getattr(caches[0], name).normal_()
            getattr(caches[1], name).copy_(getattr(caches[0], name))
        positions = torch.randint(0, 300, (rows,), device=DEVICE)
        tokens = torch.randint(0, config.vocab_size, (rows,), device=DEVICE)
        one = decode(weights, caches[0], tokens, positions, 320).float()
        other = fused_decode.decode(weights, caches[1], tokens, positions, Tile()).float()
        found[f"rows_{rows}"] = float((one - other).abs().max() / one.std())
    return found


@torch.inference_mode()
def compare_products(weights: Weights) -> dict[str, Any]:
    """Microseconds of a product with one row, cuBLAS and each tile, over all layers' weights."""
    from orchestrate_serving.builtin.kernels import row_product

    matrices = {
        name: [getattr(layer, name) for layer in weights.layers]
        for name in ("qkv", "out", "gate_up", "down")
    }
    matrices["head"] = [weights.head]
    found: dict[str, Any] = {"cublas": {}}
    began = time.perf_counter()
    for name, them in matrices.items():
        found["cublas"][name] = per_product(them, torch.nn.functional.linear)
    for tile in TILES:
        if time.perf_counter() - began > TILES_S:
            break
        row = {}
        product = partial(row_product, bias=None, tile=tile)
        for name, them in matrices.items():
            row[name] = per_product(them, product)
        found[f"{tile.outputs}x{tile.inputs} {tile.warps} warps {tile.stages} stages"] = row
    for row in found.values():
        total = sum(row[name] * len(them) for name, them in matrices.items())
        row["step_ms"] = total / 1e3
        row["gb_per_s"] = sum(w.nbytes for t in matrices.values() for w in t) / total / 1e3
    return found


def per_product(
    matrices: Sequence[torch.Tensor], product: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> float:
    """Microseconds of one product, as part of a recorded graph."""
    x = torch.randn(1, matrices[0].shape[1], dtype=matrices[0].dtype, device=DEVICE)
    product(x, matrices[0])
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for matrix in matrices:
            product(x, matrix)
    graph.replay()
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    for _ in range(REPEATS):
        graph.replay()
    last.record()
    torch.cuda.synchronize()
    return float(first.elapsed_time(last)) * 1e3 / REPEATS / len(matrices)


def best_tile(products: dict[str, Any]) -> Tile | None:
    """The fastest of :func:`compare_products`; None for cuBLAS."""
    labels = {f"{t.outputs}x{t.inputs} {t.warps} warps {t.stages} stages": t for t in TILES}
    fastest = min(products, key=lambda label: float(products[label]["step_ms"]))
    return labels.get(fastest)


def one_stream(model: Model, scale: Scale, options: EngineOptions) -> dict[str, Any]:
    """Tokens/s of one request at a time after its first token, the best of some, and the first."""
    context = scale.prompt + scale.long_answer
    (prompt,) = prompts_of(scale, 1)
    rates, firsts = [], []
    with asked(model, replace(options, slots=1, context=context)) as engine:
        before = energy_j()
        for _ in range(REPEATS):
            engine.answers([prompt], scale.long_answer)
            (times,) = engine.times
            rates.append((len(times) - 1) / (times[-1] - times[0]))
            firsts.append(times[0])
        after = energy_j()
        prepared_s = engine.prepared_s
    tokens = REPEATS * scale.long_answer
    return {
        "tokens_per_s": rates,
        "first_token_s": firsts,
        "prepared_s": prepared_s,
        "j_per_token": None if before is None or after is None else (after - before) / tokens,
    }


def offline(model: Model, scale: Scale, options: EngineOptions) -> dict[str, Any]:
    """Output tokens/s of all requests at once, and of fewer; energy of the last repetitions."""
    prompts = prompts_of(scale, scale.requests)
    context = scale.prompt + scale.answer
    found: dict[str, Any] = {}
    with asked(model, replace(options, slots=scale.requests, context=context)) as engine:
        found["prepared_s"] = engine.prepared_s
        for count in scale.batches:
            engine.answers(prompts[:count], scale.answer)
            found[f"tokens_per_s_{count}"] = count * scale.answer / engine.seconds
        engine.answers(prompts, scale.answer)
        rates, firsts, before = [], [], energy_j()
        for _ in range(REPEATS):
            engine.answers(prompts, scale.answer)
            rates.append(scale.requests * scale.answer / engine.seconds)
            firsts.append(max(times[0] for times in engine.times))
        after = energy_j()
    tokens = REPEATS * scale.requests * scale.answer
    found["tokens_per_s"] = rates
    found["all_prompts_done_s"] = firsts
    if before is not None and after is not None:
        found["j_per_output_token"] = (after - before) / tokens
        found["mean_w"] = (after - before) / (tokens / (sum(rates) / len(rates)))
    return found


def transformers_batching(config: Any, scale: Scale) -> dict[str, Any]:
    """The same prompts through transformers' continuous batching."""
    from transformers import AutoModelForCausalLM, GenerationConfig

    torch.set_default_dtype(scale.dtype)
    with DEVICE:
        model = AutoModelForCausalLM.from_config(config).eval()
    torch.set_default_dtype(torch.float32)
    settings = GenerationConfig(
        max_new_tokens=scale.answer,
        do_sample=False,
        eos_token_id=scale.shape["vocab_size"] - 1,
        pad_token_id=0,
    )
    began = time.perf_counter()
    outputs = model.generate_batch(
        inputs=prompts_of(scale, scale.requests), generation_config=settings
    )
    took = time.perf_counter() - began
    tokens = sum(len(output.generated_tokens) for output in outputs.values())
    return {"tokens_per_s": tokens / took, "tokens": tokens, "seconds": took}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--only", default="")
    return parser.parse_args()


def main() -> None:
    """All sections; the peer last, since it takes the longest."""
    options = _options()
    report = Report(options.out, frozenset(filter(None, options.only.split(","))))
    scale = LARGE if ON_GPU else SMALL
    from transformers import Qwen2Config

    sound = report.section("kernels", lambda: check_kernels(Qwen2Config(**scale.shape), scale))
    config = Qwen2Config(**scale.shape)
    began = time.perf_counter()
    weights = random_weights(config, scale.dtype, DEVICE, 0)
    model = Model(name="qwen2-7b-shape", weights=weights, tokenizer=None, ends=())
    if ON_GPU:
        torch.cuda.synchronize()
    report.found["weights_s"] = time.perf_counter() - began
    products = report.section("products", lambda: compare_products(weights)) if ON_GPU else None
    tile = best_tile(products) if products else Tile()
    report.found["tile"] = None if tile is None else asdict(tile)
    kinds = {
        "stream": EngineOptions(kernels=AUTO, tile=tile),
        "stream_cublas": EngineOptions(kernels=AUTO, tile=None),
        "stream_torch": EngineOptions(kernels=TORCH),
    }
    for name, kind in kinds.items():
        report.section(name, partial(one_stream, model, scale, kind))
    kernels = AUTO if sound or options.only else TORCH
    best = EngineOptions(kernels=kernels, tile=tile)
    report.section("offline", lambda: offline(model, scale, best))
    report.section("tokens", check_tokens)
    if options.peer:
        report.section("peer", lambda: transformers_batching(config, scale))


if __name__ == "__main__":
    main()
