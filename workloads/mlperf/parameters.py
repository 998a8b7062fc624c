"""What the script takes on its command line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Every parameter of an inference run; workload.yaml says what each is, and what it may be."""

    model: str
    shape: str
    dataset: str
    samples: int
    batch: int
    max_new_tokens: int
    ignore_eos: bool
    prompt_words: int
    dtype: str
    context: int
    device: str
    threads: int
    seed: int
    cache_dir: str
    rules: str
    scenario: str
    mode: str
    benchmark: str
    target_qps: float
    min_duration: float

    @property
    def under_load(self) -> bool:
        """Whether LoadGen asks for the samples."""
        return self.rules != "none"
