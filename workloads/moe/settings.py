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
    tokens: int
    experts: str
    attention: str
    tp: int
    warmup: int
    pairs: int
    seed: int
    device: str
