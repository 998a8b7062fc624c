"""A workload with every kind of parameter."""

from __future__ import annotations

import pytest

from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.workload import (
    Workload,
)
from orchestrator.parsing.inputs.workloads.workload_file import (
    load_workload,
)

TEXT = """
name: demo
summary: A demonstration
entry: train.py
shape: local-rounds
ranks: {per: gpu, cpu: 2}
requires: {modules: [torch, torch.nn], requirements: requirements.txt, min_nodes: 1}
default_preset: tiny
presets:
  tiny: {steps: 5}
  big: {steps: 1000, model: org/big, packing: false}
parameters:
  steps: {type: int, default: 60, min: 1, max: 1000, unit: steps, help: optimiser steps}
  rate: {type: float, default: 1, min: 0}
  width: {type: int, default: 64, min: 32, multiple_of: 32}
  ratio: {type: float, default: 0.5, above: 0, below: 1}
  model: {type: str, default: "", pattern: '[^;]*', form: text without a semicolon}
  packing: {type: bool, default: true}
  dtype: {type: choice, choices: [bf16, fp32], default: fp32}
metrics:
  loss: {unit: nats/token, direction: lower, required: true, gate: {max: 0.5}}
artifacts: [adapter, loss.jsonl]
failures: {MY-MODEL-001: name another model}
"""


def demo() -> Workload:
    return load_workload(TEXT, "w/workload.yaml", "/p/w")


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        load_workload(text, "w.yaml", "/p")
    return str(caught.value)
