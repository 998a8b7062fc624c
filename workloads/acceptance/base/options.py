"""What the script takes on its command line; the same names and defaults as in workload.yaml."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_type_hints

# What one CPU core can be asked for: the same path, at sizes that end soon.
CPU_LARGEST = {
    "max_bytes": 1 << 20,
    "sustained_s": 1.0,
    "search_trials": 6,
    "stream_mib": 8,
    "steps": 12,
    "warmup_steps": 3,
    "train_width": 64,
    "train_layers": 2,
    "train_length": 64,
    "train_batch": 4,
    "train_vocabulary": 512,
}


def _option(default: Any, text: str, *choices: str) -> Any:
    return field(default=default, metadata={"help": text, "choices": choices or None})


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Every parameter of an acceptance test."""

    device: str = _option("auto", "auto = CUDA where there is a GPU", "auto", "cpu", "cuda")
    min_bytes: int = _option(4096, "smallest message of the collectives, in bytes")
    max_bytes: int = _option(4294967296, "largest message of the collectives, in bytes")
    size_factor: int = _option(4, "ratio of one message size to the next")
    size_budget_s: float = _option(1.0, "longest time for one size; slower ones repeat less")
    sustained_s: float = _option(10.0, "how long the sustained matrix product runs")
    search_trials: int = _option(100, "shapes that the search for the fastest product tries")
    stream_mib: int = _option(1024, "size of one array of the memory test, in MiB")
    copy_mib: int = _option(512, "size of one copy between memories, in MiB")
    steps: int = _option(50, "training steps that count")
    warmup_steps: int = _option(15, "training steps before those")
    train_budget_s: float = _option(15.0, "longest time for one training configuration")
    train_width: int = _option(1024, "width of the trained model")
    train_layers: int = _option(12, "layers of the trained model")
    train_length: int = _option(1024, "tokens in one row")
    train_batch: int = _option(16, "rows of one rank in one step")
    train_vocabulary: int = _option(32768, "vocabulary of the trained model")
    collective_timeout: int = _option(300, "longest wait for another rank, in seconds")
    seed: int = _option(0, "seed of everything random")

    def for_cpu(self) -> Options:
        """Nothing larger than a CPU can do in a short time."""
        small = {name: min(getattr(self, name), most) for name, most in CPU_LARGEST.items()}
        return replace(self, min_bytes=min(self.min_bytes, small["max_bytes"]), **small)


def parse_options(argv: list[str] | None = None) -> Options:
    """Read the command line; exits with code 2 and a message when it makes no sense."""
    parser = argparse.ArgumentParser(
        description="Acceptance test of GPUs and of the network between them.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    types = get_type_hints(Options)
    for entry in fields(Options):
        parser.add_argument(
            f"--{entry.name.replace('_', '-')}",
            type=types[entry.name],
            choices=entry.metadata["choices"],
            default=entry.default,
            help=entry.metadata["help"],
        )
    options = Options(**vars(parser.parse_args(argv)))
    for complaint in _complaints(options):
        parser.error(complaint)
    return options


def _complaints(options: Options) -> list[str]:
    """What is out of bounds, in the words of the command line."""
    lowest = {"size_factor": 2, "min_bytes": 8, "warmup_steps": 1, "seed": 0}
    found = [
        f"--{entry.name.replace('_', '-')} must be at least {lowest.get(entry.name, 1)}"
        for entry in fields(options)
        if entry.name not in {"device", "sustained_s", "size_budget_s", "train_budget_s"}
        and getattr(options, entry.name) < lowest.get(entry.name, 1)
    ]
    found += [
        f"--{name.replace('_', '-')} must be above 0"
        for name in ("sustained_s", "size_budget_s", "train_budget_s")
        if not getattr(options, name) > 0
    ]
    if options.max_bytes < options.min_bytes:
        found.append("--max-bytes must not be below --min-bytes")
    if options.train_width % 64:
        found.append("--train-width must be a multiple of 64")
    return found
