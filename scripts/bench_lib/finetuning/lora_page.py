"""The page of the table of LoRA throughput, made of its rows alone.  Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from bench_lib.base.report import table

from .lora_table import Row

HEADINGS = (
    "side",
    "tokens/s per GPU",
    "of usual",
    "MFU",
    "of the bound",
    "W",
    "tokens/J",
    "peak GiB",
    "loss, last (largest difference)",
)
PLANNED = (
    ("qwen2-7b", "1"),
    ("qwen2-7b", "2"),
    ("qwen2-7b", "4"),
    ("qwen2.5-32b", "4"),
    ("qwen2.5-72b", "4"),
)
INTRODUCTION = """\
# LoRA throughput

Made by `scripts/bench lora`, from [{csv}]({csv}): one command fills in what a machine can
measure, row by row, and keeps what it has when it is stopped. Edit neither file by hand.

Protocol: one process a GPU, one model of the named shape with random weights in bf16, adapters of
rank r on all linear layers (alpha 2 r), 8 rows of 4096 tokens a step and GPU (4 from 32B on), all
of them targets, drawn at random from 64 words; AdamW, learning rate 2e-4 with warm-up and decay,
gradients clipped. All sides of a heading train on the same rows from the same adapter; unsloth,
which patches transformers for the whole process, in a process of its own right after the others.
The first 2 of 7 steps compile and warm up and are left out; the rate is the median of the other 5,
in brackets the slowest and the fastest step. Machines are measured as they are found: no clock and
no power limit is set.

- **usual**: the script that most people write: transformers, peft, fp32 adapters, sdpa, gradient
  checkpointing, micro-batches of 2, DDP.
- **tuned**: the same libraries with what is known to help: adapters in bf16 with fp32 masters in
  AdamW, each decoder layer compiled, no checkpointing, cuDNN's attention, liger-kernel's output
  layer and loss in one, micro-batches of 2.
- **unsloth**: `FastLanguageModel`, bf16 weights, autocast, its own kernels and loss, no
  checkpointing, micro-batches of 2.
- **ours**, **ours, fp8**: this project's `finetune` workload, `engine=fused`; in fp8 frozen
  matrices are multiplied in e4m3.
- **MFU**: tokens/s times 4 for each frozen weight of a matrix product and 6 for each of the
  adapter, by the dense bf16 peak of the vendor's data sheet (also for fp8); attention, and what is
  computed twice, do not count.
- **of the bound**: of what this engine's matrix products and its attention alone take, one after
  another with nothing between, for 2.5 s each, in the same process right after; in bf16 and in fp8
  an adapter's share is part of them.
- **W**, **tokens/J**: the GPU's own energy counter over the timed steps. **peak**: of torch's
  allocator.
- **loss**: that of the last step, and the largest relative difference of any step's from the usual
  script's. A side whose loss is no number has failed: its rate is not that of a training.
"""


def page(rows: Sequence[Row], csv_name: str) -> str:
    """The whole page."""
    parts = [INTRODUCTION.format(csv=csv_name)]
    ordered = sorted(rows, key=_place)
    for device, of_device in groupby(ordered, key=lambda row: row["device"]):
        parts.extend(_of_device(device, list(of_device)))
    return "\n".join(parts)


def _place(row: Row) -> tuple[str, str, int, int]:
    """Sides stay in the order in which they were measured."""
    return row["device"], row["model"], int(row["gpus"]), -int(row["lora_rank"])


def _of_device(device: str, rows: Sequence[Row]) -> Iterator[str]:
    yield f"## {device}\n"
    for (model, gpus, rank), group in groupby(
        rows, key=lambda row: (row["model"], row["gpus"], row["lora_rank"])
    ):
        own = list(group)
        where = f"{gpus} GPU{'' if gpus == '1' else 's'}" if gpus != "0" else "a CPU"
        last = own[-1]
        yield f"### {model}, r {rank}, {where}\n"
        yield table(HEADINGS, [_cells(row) for row in own]) + "\n"
        yield f"{last['date']}, torch {last['torch']}, commit {last['commit']}.\n"
        yield "\n".join(f"- {row['side']}: {row['how']}" for row in own) + "\n"
        if gpus == "1" and "unsloth" not in {row["side"] for row in own}:
            yield "No figure of unsloth in this run.\n"
    measured = {(row["model"], row["gpus"]) for row in rows}
    missing = [f"{model} on {gpus}" for model, gpus in PLANNED if (model, gpus) not in measured]
    if missing and device != "CPU":
        yield f"Not run on this machine: {', '.join(missing)} GPUs.\n"


def _cells(row: Row) -> tuple[str, ...]:
    if not row["tokens_per_s_per_gpu"]:
        return (row["side"], "failed", *[""] * (len(HEADINGS) - 2))
    rate, low, high = (
        f"{int(row[name]):,}" for name in ("tokens_per_s_per_gpu", "lowest", "highest")
    )
    apart = f" ({float(row['loss_apart']):.2%})" if row["loss_apart"] else ""
    return (
        row["side"],
        f"{rate} ({low}..{high})",
        row["of_usual"],
        f"{float(row['mfu']):.1%}" if row["mfu"] else "",
        row["of_bound"],
        row["watts"],
        row["tokens_per_joule"],
        row["peak_gib"],
        f"{row['loss_last']}{apart}",
    )
