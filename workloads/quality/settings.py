"""What can be set; workload.yaml declares each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The command line."""

    shape: str
    model: str
    dataset: str
    lines: int
    max_tokens: int
    precision: str
    attention: str
    tp: int
    seed: int
    device: str
