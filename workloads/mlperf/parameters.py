"""What the script takes on its command line; the same names and defaults as in workload.yaml."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints


def _option(default: Any, text: str, *choices: str) -> Any:
    return field(default=default, metadata={"help": text, "choices": choices or None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Every parameter of an inference run."""

    model: str = _option("", "hub name or folder; empty = a small generated one")
    dataset: str = _option("", "JSONL file of {prompt} or {messages}; empty = generated prompts")
    samples: int = _option(64, "prompts to answer; of a file at most that many, 0 = all")
    batch: int = _option(4, "prompts answered together")
    max_new_tokens: int = _option(16, "longest answer, in tokens")
    ignore_eos: bool = _option(False, "answers of exactly max_new_tokens, for equal work")
    prompt_words: int = _option(48, "longest generated prompt, in words")
    dtype: str = _option("fp32", "arithmetic of the model", "fp32", "bf16")
    attention: str = _option("sdpa", "attention kernel", "sdpa", "eager", "flash_attention_2")
    device: str = _option("auto", "auto = CUDA where there is a GPU", "auto", "cpu", "cuda")
    threads: int = _option(1, "CPU threads of a rank; other numbers round differently")
    seed: int = _option(0, "seed of generated prompts and weights")
    cache_dir: str = _option("", "where the generated model is kept; empty = the user's cache")


def parse_parameters(argv: list[str] | None = None) -> Parameters:
    """Read the command line; exits with code 2 and a message when it makes no sense."""
    parser = argparse.ArgumentParser(
        description="Answer prompts with a language model, MLPerf-style Offline scenario.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    types = get_type_hints(Parameters)
    for entry in fields(Parameters):
        flag = f"--{entry.name.replace('_', '-')}"
        options: dict[str, Any] = {"default": entry.default, "help": entry.metadata["help"]}
        if types[entry.name] is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options |= {"type": types[entry.name], "choices": entry.metadata["choices"]}
        parser.add_argument(flag, **options)
    parameters = Parameters(**vars(parser.parse_args(argv)))
    for complaint in _complaints(parameters):
        parser.error(complaint)
    return parameters


def _complaints(parameters: Parameters) -> list[str]:
    """What is out of bounds, in the words of the command line."""
    found = [
        f"--{name.replace('_', '-')} must be at least 1"
        for name in "batch max_new_tokens prompt_words threads".split()
        if getattr(parameters, name) < 1
    ]
    if parameters.samples < (0 if parameters.dataset else 1):
        found.append("--samples must be at least 1, or 0 for all of a --dataset")
    return found
