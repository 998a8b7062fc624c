"""What the script takes on its command line."""

from __future__ import annotations

from dataclasses import dataclass, replace

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Every parameter of an acceptance test; workload.yaml says what each is, and may be."""

    device: str
    min_bytes: int
    max_bytes: int
    size_factor: int
    size_budget_s: float
    sustained_s: float
    search_trials: int
    stream_mib: int
    copy_mib: int
    steps: int
    warmup_steps: int
    train_budget_s: float
    train_width: int
    train_layers: int
    train_length: int
    train_batch: int
    train_vocabulary: int
    collective_timeout: int
    seed: int

    def for_cpu(self) -> Options:
        """Nothing larger than a CPU can do in a short time."""
        small = {name: min(getattr(self, name), most) for name, most in CPU_LARGEST.items()}
        return replace(self, min_bytes=min(self.min_bytes, small["max_bytes"]), **small)
