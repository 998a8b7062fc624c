"""How the engine is set up. Pure."""

from __future__ import annotations

from dataclasses import dataclass

AUTO = "auto"  # Triton's kernels on a GPU, torch elsewhere
TORCH = "torch"
TRITON = "triton"
KERNELS = (AUTO, TORCH, TRITON)


@dataclass(frozen=True, slots=True)
class Tile:
    """How a product with one row is cut: outputs and inputs that a program holds at a time, its
    warps, and loads under way. The default was the fastest of six on an H200 (docs/benchmarks.md).
    """

    outputs: int = 4
    inputs: int = 512
    warps: int = 2
    stages: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """``slots`` 0 = as many as memory holds, at most 256; ``context`` 0 = the model's, at most 4096
    tokens. ``prefill_tokens``: tokens of prompts that are computed together. ``kernels`` is one of
    :data:`KERNELS`; with Triton's, ``tile`` None leaves products with one row to cuBLAS.
    """

    slots: int = 0
    context: int = 0
    prefill_tokens: int = 8192
    kernels: str = AUTO
    tile: Tile | None = Tile()
