"""What might make fine-tuning faster, tried beside what is there, on one GPU.

    python3 scripts/bench_lib/programs/finetune_trials.py passes graph attention

``passes``: each element-wise pass of the engine alone, beside the time that its bytes take at the
speed of a copy. ``graph``: a micro-batch, forward and backward, launched kernel by kernel and as
one CUDA graph, in turn. ``attention``: bf16 as torch calls cuDNN, and fp8 by cuDNN's own interface
(nvidia-cudnn-frontend), with how far both are from fp32. One JSON line for each figure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[2]
WORKLOADS = SCRIPTS.parent / "workloads"
sys.path += [str(WORKLOADS), str(SCRIPTS)]

import torch  # noqa: E402 - after the workload's folder
from bench_lib.finetuning.models import SHAPES, qwen2  # noqa: E402
from bench_lib.finetuning.rows import drawn  # noqa: E402
from torch import Tensor  # noqa: E402

from finetune.data.packing import collate, text_example  # noqa: E402
from finetune.fused.attention import Heads, attend, documents  # noqa: E402
from finetune.fused.layer import Recompute  # noqa: E402
from finetune.fused.model import FusedModel  # noqa: E402
from finetune.fused.ops import operations  # noqa: E402

REPEATS = 9
RANK = 64
Figures = Iterator[dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    trials = {"passes": passes, "graph": graph, "attention": attention}
    parser.add_argument("trials", nargs="+", choices=list(trials))
    parser.add_argument("--model", choices=list(SHAPES), default="tiny")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=64)
    options = parser.parse_args()
    for name in options.trials:
        try:
            for figure in trials[name](options):
                print(json.dumps({"trial": name, **figure}), flush=True)
        except Exception as error:  # noqa: BLE001 - one trial must not cost the others
            reason = f"{type(error).__name__}: {error}"[:1500]
            print(json.dumps({"trial": name, "failed": reason}), flush=True)


def found_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def ready() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def timed(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """Milliseconds, the median of some calls, each to its end; two warm up."""
    took = []
    for _ in range(repeats + 2):
        ready()
        began = time.perf_counter()
        call()
        ready()
        took.append(time.perf_counter() - began)
    return 1e3 * statistics.median(took[2:])


# ---- passes --------------------------------------------------------------------------------------


def passes(options: argparse.Namespace) -> Figures:
    """Bytes are what a pass must read and write once."""
    device, shape = found_device(), SHAPES[options.model]
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    rows, width, ffn = (
        options.rows * options.length,
        shape["hidden_size"],
        shape["intermediate_size"],
    )
    ops, size = operations(device), torch.finfo(kind).bits // 8

    def some(columns: int) -> Tensor:
        return torch.randn(rows, columns, device=device).to(kind)

    copied, per_ms = _copy(some(4 * ffn))
    yield {"name": "copy", "ms": copied, "gb_per_s": per_ms / 1e6}
    gate_up, product, thin = some(2 * ffn), some(ffn), some(2 * RANK)
    x, weight, out = some(width), some(width)[0].contiguous(), some(width)
    rounded = ops.rms_norm_rounded(x, weight, 1e-6, out, None, spare=2 * RANK)
    beside = rounded[1]
    calls: dict[str, tuple[int, Callable[[], object]]] = {
        "swiglu": (3 * ffn * size, lambda: ops.swiglu(gate_up, product)),
        "swiglu, rounded": (
            ffn * (3 * size + 1),
            lambda: ops.swiglu_rounded(gate_up, product, spare=RANK),
        ),
        "rounding of what swiglu makes": (
            ffn * (size + 1),
            lambda: ops.quantise_rows(product, spare=RANK),
        ),
        "swiglu backward": (6 * ffn * size, lambda: ops.swiglu_backward(product, gate_up)),
        "swiglu backward, rounded": (
            ffn * (6 * size + 2),
            lambda: ops.swiglu_backward_rounded(product, gate_up, spare=2 * RANK),
        ),
        "norm, rounded": (
            width * (2 * size + 1),
            lambda: ops.rms_norm_rounded(x, weight, 1e-6, out, None, spare=2 * RANK),
        ),
        "an adapter's columns": (
            2 * RANK * (size + 1),
            lambda: ops.extend_rows(beside, out, thin, 0.25),
        ),
    }
    for name, (moved, call) in calls.items():
        gate_up.normal_()
        product.normal_()
        took = timed(call)
        yield {"name": name, "rows": rows, "ms": took, "of_copy": rows * moved / per_ms / took}


def _copy(source: Tensor) -> tuple[float, float]:
    """Its milliseconds, and the bytes that it reads and writes in each of them."""
    target = torch.empty_like(source)
    took = timed(lambda: target.copy_(source))
    return took, 2 * source.numel() * source.element_size() / took


# ---- graph ---------------------------------------------------------------------------------------


def graph(options: argparse.Namespace) -> Figures:
    """Host: until the calls are back, while the device still works."""
    for fp8 in (False, True):
        model = qwen2(options.model, found_device(), rank=RANK)
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.grad = torch.zeros_like(parameter)
        fused = FusedModel(model, fp8=fp8)
        rows = [(text_example(own[:1], own[1:]),) for own in drawn(options.rows, options.length)]
        laid = fused.lay(collate(rows, pad=0, one_row=True))

        def eager(fused: FusedModel = fused, laid: Any = laid) -> Tensor:
            return fused.accumulate(laid, 1e-5, Recompute.NONE)

        one_by_one = timed(eager)
        ready()
        began = time.perf_counter()
        eager()
        host = 1e3 * (time.perf_counter() - began)
        yield {"name": "one by one", "fp8": fp8, "ms": one_by_one, "host_ms": host}
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            recorded = torch.cuda.CUDAGraph()
            with torch.cuda.graph(recorded):
                loss = eager()
            pairs = [(timed(eager, 3), timed(recorded.replay, 3)) for _ in range(3)]
            yield {"name": "in turn", "fp8": fp8, "one_by_one_ms": [own for own, _ in pairs],
                   "graph_ms": [own for _, own in pairs], "loss": float(loss)}  # fmt: skip
            del recorded, loss
        del fused, model, eager, laid
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


# ---- attention -----------------------------------------------------------------------------------


def attention(options: argparse.Namespace) -> Figures:
    """Heads as of the shape, [rows, heads, length, depth] over tokens that lie end to end."""
    device, shape = found_device(), SHAPES[options.model]
    heads, shared = shape["num_attention_heads"], shape["num_key_value_heads"]
    depth, tokens = shape["hidden_size"] // heads, options.rows * options.length
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)

    def some(count: int) -> Tensor:
        return torch.randn(tokens, count, depth, device=device).to(kind)

    drawn_heads, grad = Heads(some(heads), some(shared), some(shared)), some(heads)
    where = documents(torch.arange(options.length).repeat(options.rows)[None])
    scale = depth**-0.5

    def whole() -> tuple[Tensor, ...]:
        own = attend(drawn_heads, where, scale, keep=True)
        return own.out, *own.backward(grad.flatten(1)).all

    alone = timed(lambda: attend(drawn_heads, where, scale, keep=False))
    both = timed(whole)
    yield {"name": "as it is", "forward_ms": alone, "both_ms": both}
    exact = _exact(drawn_heads, grad, options.length, scale)
    yield {"name": "as it is", "apart": _apart(whole(), exact, options.length)}
    if device.type == "cuda":
        from bench_lib.trainers.cudnn_fp8 import AttentionFp8

        eight = AttentionFp8(drawn_heads.all, grad, options.rows, scale)
        yield {"name": "fp8", "forward_ms": timed(eight.forward),
               "backward_ms": timed(eight.backward), "rounding_ms": timed(eight.round)}  # fmt: skip
        yield {"name": "fp8", "apart": _apart(eight.found(), exact, options.length)}


def _exact(heads: Heads, grad: Tensor, length: int, scale: float) -> tuple[Tensor, ...]:
    """Output and gradients of the first row, in fp32."""
    queries, keys, values = (t[:length].float().transpose(0, 1).requires_grad_() for t in heads.all)
    many = queries.shape[0] // keys.shape[0]
    scores = queries @ keys.repeat_interleave(many, 0).transpose(1, 2) * scale
    future = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
    weights = scores.masked_fill(future, -torch.inf).softmax(-1)
    out = (weights @ values.repeat_interleave(many, 0)).transpose(0, 1)
    found = torch.autograd.grad(out, (queries, keys, values), grad[:length].float())
    return out.detach(), *(own.transpose(0, 1) for own in found)


def _apart(found: tuple[Tensor, ...], exact: tuple[Tensor, ...], length: int) -> list[float]:
    """Of the output and the gradients of queries, keys and values."""
    return [
        float((own[:length].float().view_as(wanted) - wanted).norm() / wanted.norm())
        for own, wanted in zip(found, exact, strict=True)
    ]


if __name__ == "__main__":
    main()
