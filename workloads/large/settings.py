"""What can be set; workload.yaml declares each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The command line."""

    shape: str
    model: str
    precision: str
    batch: int
    prompt_tokens: int
    new_tokens: int
    attention: str
    compile: bool
    tp: int
    warmup: int
    repeats: int
    seed: int
    device: str
