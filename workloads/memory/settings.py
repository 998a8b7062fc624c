"""What can be set; workload.yaml declares each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The command line."""

    shape: str
    model: str
    mode: str
    precision: str
    batch: int
    tokens: int
    new_tokens: int
    attention: str
    snapshot: bool
    seed: int
    device: str
