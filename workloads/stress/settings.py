"""What can be set; workload.yaml declares each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """The command line."""

    seconds: float
    width: int
    message_mib: int
    window_s: float
    seed: int
    device: str
