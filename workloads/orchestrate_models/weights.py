"""Weights of a model's shape without its files, made where they are needed.

transformers loads from slices of files, and cuts from each what this rank holds. Here the slices
make their numbers: every rank makes the same tensor from its name and the seed and keeps its part,
so that nothing is written, read or sent, and at most a few whole tensors exist at a time.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from types import EllipsisType
from typing import Any

import torch
from transformers import AutoModelForCausalLM

Index = tuple[slice, ...] | EllipsisType
# What a layer adds to the sum that goes through the model.
BRANCH_ENDS = ("o_proj.weight", "down_proj.weight", "experts.down_proj")
DEVIATION = 0.02


@dataclass(frozen=True, kw_only=True)
class RandomSlice:
    """The part of safetensors' slices that transformers uses: a tensor that exists once indexed.

    Normal values of this deviation; a deviation of 0 stands for the constant ``mean``.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    seed: int
    deviation: float
    mean: float = 0.0

    def get_shape(self) -> list[int]:
        return list(self.shape)

    def __getitem__(self, index: Index) -> torch.Tensor:
        made = torch.empty(self.shape, dtype=self.dtype, device=self.device)
        if not self.deviation:
            return made.fill_(self.mean)[index]
        own_seed = zlib.crc32(f"{self.seed}/{self.name}".encode())
        generator = torch.Generator(self.device).manual_seed(own_seed)
        made.normal_(self.mean, self.deviation, generator=generator)
        # A copy of the part, or the whole tensor would live as long as the part does.
        return made if index is ... else made[index].clone()


def skeleton(config: Any) -> Any:
    """The model without memory behind its weights."""
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def random_slices(
    config: Any, dtype: torch.dtype, device: torch.device, seed: int, *, smooth: bool = False
) -> dict[str, RandomSlice]:
    """By the names that the model's state has.

    Plain random weights amplify rounding from layer to layer. ``smooth`` ones do not: embeddings of
    deviation 1, and what each layer adds divided by the root of twice the number of layers (the
    initialisation of GPT-2: Radford et al. 2019, section 2.3), so that the sum that goes through
    the model hardly changes from one layer to the next.
    """
    deviation = float(getattr(config, "initializer_range", DEVIATION))
    branch = 1 / math.sqrt(2 * config.num_hidden_layers) if smooth else 1.0

    def slice_of(name: str, parameter: torch.Tensor) -> RandomSlice:
        spread, mean = deviation, 0.0
        if parameter.dim() == 1:
            spread, mean = 0.0, 0.0 if name.endswith("bias") else 1.0
        elif name.endswith(BRANCH_ENDS):
            spread *= branch
        elif smooth and name.endswith("embed_tokens.weight"):
            spread = 1.0
        shape = tuple(parameter.shape)
        return RandomSlice(
            name=name, shape=shape, dtype=dtype, device=device, seed=seed, deviation=spread,
            mean=mean,
        )  # fmt: skip

    return {name: slice_of(name, value) for name, value in skeleton(config).named_parameters()}
