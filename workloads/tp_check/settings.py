"""What can be set; workload.yaml declares each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The command line."""

    shape: str
    model: str
    weights: str
    precision: str
    prompts: int
    tokens: int
    attention: str
    seed: int
    device: str
