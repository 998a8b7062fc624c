"""What a model needs of memory, by arithmetic, before anything is loaded."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .unusable import UnusableSettings
from .weights import skeleton

GIB = 2**30
# Of the device: what the driver's context, the libraries' workspaces and fragments take.
KEPT_FREE = 0.05


class DoesNotFit(UnusableSettings):
    """The message has the sum and what there is."""


@dataclass(frozen=True, kw_only=True)
class MemoryNeed:
    """Bytes of one device by what holds them."""

    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    def text(self) -> str:
        terms = [f"{name} {size / GIB:.3g}" for name, size in self.parts.items()]
        return f"{' + '.join(terms)} = {self.total / GIB:.3g} GiB"


def parameter_count(config: Any) -> int:
    """Without loading any."""
    return sum(parameter.numel() for parameter in skeleton(config).parameters())


def inference_need(
    config: Any, dtype: torch.dtype, *, tensor_parallel: int, batch: int, tokens: int, logits: int
) -> MemoryNeed:
    """Of one of ``tensor_parallel`` devices: ``batch`` sequences of ``tokens``, cached, of which
    each has logits (in float32 too, which sampling and loss use) at ``logits`` positions.
    Activations are those of one layer: the widest of its products, twice.
    """
    size = dtype.itemsize
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    cache = 2 * config.num_hidden_layers * kv_heads * head_size * batch * tokens * size
    widest = max(config.intermediate_size, _routed_width(config))
    activations = 2 * batch * tokens * (widest // tensor_parallel + 2 * config.hidden_size) * size
    head = batch * logits * config.vocab_size * (size + 4)
    return MemoryNeed(
        parts={
            "weights": parameter_count(config) * size // tensor_parallel,
            "cache": cache // tensor_parallel,
            "activations": activations,
            "logits": head,
        }
    )


def training_need(config: Any, dtype: torch.dtype, *, batch: int, tokens: int) -> MemoryNeed:
    """Of one device that trains all weights by AdamW, all in ``dtype``: weights, gradients and two
    moments. Activations of a layer without recomputation are 34 values of the hidden size for each
    token at two bytes (Korthikanti et al. 2022, table 2, without what attention kernels of linear
    memory do not keep).
    """
    size = dtype.itemsize
    weights = parameter_count(config) * size
    kept = 17 * batch * tokens * config.hidden_size * config.num_hidden_layers * size
    return MemoryNeed(
        parts={
            "weights": weights,
            "gradients": weights,
            "moments": 2 * weights,
            "activations": kept,
            "logits": 2 * batch * tokens * config.vocab_size * (size + 4),
        }
    )


def _routed_width(config: Any) -> int:
    """Width of all experts of a token side by side; 0 of a dense model."""
    chosen = getattr(config, "num_experts_per_tok", 0) or 0
    width = getattr(config, "moe_intermediate_size", None) or config.intermediate_size
    return int(chosen * width)


def available_bytes(device: torch.device, ranks_here: int) -> int:
    """Of a GPU what is free; of a host this rank's share of it."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * (1 - KEPT_FREE))
    return _host_bytes() // max(1, ranks_here)


def _host_bytes() -> int:
    """What programs can have without swapping: free pages, and those that only cache files."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            name, _, kibibytes = line.partition(":")
            if name == "MemAvailable":
                return int(kibibytes.split()[0]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def require_fit(
    need: MemoryNeed,
    device: torch.device,
    ranks_here: int,
    remedy: str = "set a smaller shape, batch or length, or divide the model (--tp)",
) -> None:
    """Raises :class:`DoesNotFit`, which ends with ``remedy``."""
    there = available_bytes(device, ranks_here)
    if need.total > there:
        raise DoesNotFit(
            f"does not fit: {need.text()}, and {device} has {there / GIB:.3g} GiB free; "
            f"nothing was loaded. Next: {remedy}"
        )
