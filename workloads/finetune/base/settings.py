"""What the script takes on its command line; the same names and defaults as in workload.yaml."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_type_hints

# What may differ between the attempt that wrote a checkpoint and the one that resumes from it.
FREE_TO_CHANGE = frozenset(
    "cache_dir checkpoint_every collective_timeout engine eval_every generate_batch gpu_hour_usd "
    "inner_scaling keep_checkpoints max_new_tokens micro_batch oom outer_learning_rate "
    "outer_momentum recompute round_compression round_exchange round_steps shard".split()
)


AUTO = 0  # a micro-batch of as many rows as fit


def _option(default: Any, text: str, *choices: str, word: str = "") -> Any:
    """`word` is valid in place of a number, and means 0."""
    return field(default=default, metadata={"help": text, "choices": choices, "word": word})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every parameter of a fine-tuning run."""

    model: str = _option("", "base model: hub name or folder; empty = a small generated one")
    dataset: str = _option("", "JSONL file of {tools, messages}; empty = generated conversations")
    steps: int = _option(200, "optimiser steps")
    micro_batch: int = _option(
        6, "rows in one forward and backward pass of one rank; auto = as many as fit", word="auto"
    )
    oom: str = _option(
        "fail", "out of memory: fail, or retry with half the micro-batch", "fail", "retry"
    )
    accumulation: int = _option(1, "passes per step and rank; used if global_batch is 0")
    global_batch: int = _option(
        12, "rows in one step over all ranks; 0 = micro_batch x accumulation x ranks"
    )
    sequence_length: int = _option(256, "longest row, in tokens; longer conversations are left out")
    packing: bool = _option(True, "put several conversations into one row, kept apart by attention")
    lora_rank: int = _option(32, "rank of the adapter")
    lora_alpha: int = _option(64, "scale of the adapter; its effect is alpha / rank")
    lora_dropout: float = _option(0.0, "dropout before the adapter; not 0 = depends on rank count")
    learning_rate: float = _option(8e-3, "peak learning rate")
    warmup_ratio: float = _option(0.04, "part of the steps in which the learning rate rises")
    weight_decay: float = _option(0.0, "AdamW weight decay of the adapter")
    max_grad_norm: float = _option(1.0, "gradients are scaled down to this norm")
    dtype: str = _option("fp32", "arithmetic of the base model", "fp32", "bf16")
    attention: str = _option(
        "sdpa", "attention kernel", "sdpa", "flash_attention_2", "flex_attention", "eager"
    )
    engine: str = _option(
        "auto",
        "plain = transformers and autograd; fused = passes of our own; auto = fused on GPUs, for "
        "what it knows, and where fp8 or shard ask for it",
        "auto",
        "plain",
        "fused",
    )
    recompute: str = _option(
        "auto",
        "what the fused engine computes twice to save memory",
        "auto",
        "none",
        "mlp",
        "layer",
    )
    fp8: bool = _option(False, "the fused engine multiplies frozen weights in 8-bit floating point")
    shard: str = _option(
        "auto",
        "the fused engine's ranks share the frozen weights; auto = where one cannot hold them",
        "auto",
        "off",
        "on",
    )
    gradient_checkpointing: bool = _option(False, "recompute activations: less memory, slower")
    device: str = _option("auto", "auto = CUDA where there is a GPU", "auto", "cpu", "cuda")
    eval_every: int = _option(0, "steps between evaluations; 0 = only before and after training")
    checkpoint_every: int = _option(50, "steps between checkpoints; 0 = only at the end")
    keep_checkpoints: int = _option(2, "newest checkpoints kept on each node")
    train_conversations: int = _option(5600, "generated conversations to train on")
    eval_conversations: int = _option(112, "held-out conversations")
    generate_batch: int = _option(28, "prompts answered together when calls are scored")
    max_new_tokens: int = _option(64, "longest generated answer, in tokens")
    base_steps: int = _option(600, "pre-training steps of the generated base model")
    seed: int = _option(0, "seed of everything random")
    cache_dir: str = _option("", "where the generated base is kept; empty = the user's cache")
    round_exchange: str = _option(
        "auto",
        "without collectives between nodes: gradients of each step, summed (exact), or changes of "
        "parameters, averaged; auto = gradients of up to a million parameters",
        "auto",
        "changes",
        "gradients",
    )
    round_steps: int = _option(5, "steps between averagings of changes")
    inner_scaling: str = _option(
        "sqrt",
        "changes that are averaged: a node with a part p of the rows learns 1 / sqrt(p) times as "
        "fast, or not",
        "sqrt",
        "none",
    )
    outer_learning_rate: float = _option(1.0, "of the averaged change, in the outer step")
    outer_momentum: float = _option(0.0, "Nesterov momentum of the outer step")
    round_compression: str = _option(
        "int8", "how changes travel that are averaged", "int8", "bf16", "none"
    )
    gpu_hour_usd: float = _option(0.0, "price of one GPU for an hour; 0 = no cost is reported")
    collective_timeout: int = _option(300, "longest wait for another rank, in seconds")

    @property
    def one_row(self) -> bool:
        """Whether a micro-batch's rows are laid end to end."""
        return self.engine == "fused" or self.attention == "flash_attention_2"

    def rows_per_step(self, world_size: int) -> int:
        """Rows that all ranks together train on in one step."""
        return self.global_batch or self.micro_batch * self.accumulation * world_size

    def digest(self, world_size: int) -> str:
        """Identity of the training: equal digests give the same sequence of updates."""
        kept = {name: value for name, value in asdict(self).items() if name not in FREE_TO_CHANGE}
        kept["global_batch"] = self.rows_per_step(world_size)
        del kept["accumulation"]
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()


def parse_settings(argv: list[str] | None = None) -> Settings:
    """Read the command line; exits with code 2 and a message when it makes no sense."""
    parser = argparse.ArgumentParser(
        description="Fine-tune a language model for function calling with LoRA.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    types = get_type_hints(Settings)
    for entry in fields(Settings):
        flag = f"--{entry.name.replace('_', '-')}"
        options: dict[str, Any] = {"default": entry.default, "help": entry.metadata["help"]}
        if types[entry.name] is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options["choices"] = entry.metadata["choices"] or None
            options["type"] = types[entry.name]
            if entry.metadata["word"]:
                options["type"] = _or_word(types[entry.name], entry.metadata["word"])
        parser.add_argument(flag, **options)
    settings = Settings(**vars(parser.parse_args(argv)))
    for complaint in _complaints(settings):
        parser.error(complaint)
    return settings


def _or_word(number: Callable[[str], Any], word: str) -> Callable[[str], Any]:
    """A parser of numbers, and of a word that is valid in place of one."""

    def parse(text: str) -> Any:
        if text == word:
            return AUTO
        try:
            value = number(text)
        except ValueError:
            value = AUTO
        if value == AUTO:
            raise argparse.ArgumentTypeError(f"expected a number other than 0, or {word}")
        return value

    return parse


def _complaints(settings: Settings) -> list[str]:
    """What is out of bounds, in the words of the command line."""
    positive = (
        "steps accumulation sequence_length lora_rank lora_alpha keep_checkpoints "
        "train_conversations eval_conversations generate_batch max_new_tokens collective_timeout "
        "round_steps"
    ).split()
    found = [
        f"--{name.replace('_', '-')} must be at least 1"
        for name in positive
        if getattr(settings, name) < 1
    ]
    not_negative = (
        "micro_batch global_batch eval_every checkpoint_every base_steps weight_decay gpu_hour_usd"
    ).split()
    found += [
        f"--{name.replace('_', '-')} must not be negative"
        for name in not_negative
        if getattr(settings, name) < 0
    ]
    if not 0 <= settings.lora_dropout < 1:
        found.append("--lora-dropout must be in [0, 1)")
    if not 0 <= settings.warmup_ratio < 1:
        found.append("--warmup-ratio must be in [0, 1)")
    if not 0 < settings.outer_learning_rate <= 10:
        found.append("--outer-learning-rate must be in (0, 10]")
    if not 0 <= settings.outer_momentum < 0.999:
        found.append("--outer-momentum must be in [0, 0.999)")
    if settings.learning_rate <= 0 or settings.max_grad_norm <= 0:
        found.append("--learning-rate and --max-grad-norm must be above 0")
    if settings.micro_batch == AUTO and not settings.global_batch:
        found.append("--micro-batch auto needs --global-batch: a step's rows must not depend on it")
    return found + _complaints_of_engine(settings)


def _complaints_of_engine(settings: Settings) -> list[str]:
    """What the engine cannot do, or not at once; auto is fused where fp8 or shard ask for it."""
    found = []
    asked = {"--engine fused": settings.engine == "fused", "--fp8": settings.fp8}
    asked["--shard on"] = settings.shard == "on"
    fused = next((option for option, given in asked.items() if given), "")
    if fused and settings.engine == "plain":
        found.append(f"{fused} needs --engine fused")
    if fused and settings.lora_dropout:
        found.append(f"{fused} has no dropout: pass --lora-dropout 0, or --engine plain alone")
    if fused and settings.gradient_checkpointing:
        found.append(
            f"--gradient-checkpointing is for --engine plain; with {fused} pass --recompute"
        )
    if settings.shard == "on" and settings.fp8:
        found.append("--shard on is not for --fp8, whose weights are held whole: pass one of them")
    if settings.shard == "on" and settings.oom == "retry":
        found.append("--shard on binds the ranks to the same passes: --oom retry cannot work")
    return found
