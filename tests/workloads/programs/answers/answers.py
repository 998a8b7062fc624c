"""Answers the samples that it is given with three tokens each; where a test wants it, slowly."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import orchestrate_kit as kit


@dataclass(frozen=True)
class Settings:
    """Every parameter of workload.yaml."""

    dataset: str
    samples: int
    batch: int
    pause: float
    slow: str
    refuse: int
    rules: str
    scenario: str
    mode: str
    benchmark: str
    target_qps: float
    min_duration: float


def main() -> None:
    """Do every group: the first tokens of all, after that the rest of each."""
    asked = kit.parse(Settings)
    slower = dict(entry.split("=") for entry in asked.slow.split(",") if entry)
    pause_s = asked.pause * float(slower.get(os.environ.get("ORCHESTRATE_NODE", ""), "1"))
    per_s = 1 / pause_s
    for group in kit.groups(asked.samples, asked.batch, asked.dataset, "", per_s):
        answer(group, pause_s, asked.refuse)


def answer(group: Sequence[kit.Sample], pause_s: float, refuse: int) -> None:
    """Half of the time before the first tokens."""
    time.sleep(pause_s * len(group) / 2)
    for sample in group:
        if sample.of != refuse:
            kit.first_token(sample)
    time.sleep(pause_s * len(group) / 2)
    for sample in group:
        if sample.of == refuse:
            kit.fail(sample, "it was to be refused")
            continue
        number = sample.of if sample.data is None else sample.data
        worth = {"even": float(number % 2 == 0), "half": 0.5, "no score": 2}
        output = {"tokens": [number, 1, 2], "sample": sample.of, "score": worth}
        kit.complete(sample, output, pause_s, generated_tokens=3)


if __name__ == "__main__":
    main()
