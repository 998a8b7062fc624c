"""Models of transformers on one device, or divided over all ranks by its tensor-parallel plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from transformers import AutoModelForCausalLM
from transformers.distributed.configuration_utils import DistributedConfig

from .devices import fp8_reason
from .fp8 import use_fp8
from .ranks import Ranks
from .unusable import UnusableSettings
from .weights import random_slices, skeleton

# What is multiplied in fp8 is bf16 everywhere else.
DTYPES = {
    "fp64": torch.float64,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.bfloat16,
}


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """``model``: a folder or a name on the hub; empty = random weights of ``config``'s shape, from
    ``seed``, made in ``weights_in`` (empty = ``precision``) and then widened, so that models of two
    precisions have the same ones. ``tensor_parallel`` is 1 or the number of ranks; ``experts``
    names the implementation of a mixture's experts, empty = the library's choice.
    """

    config: Any
    model: str = ""
    precision: str = "bf16"
    weights_in: str = ""
    attention: str = "sdpa"
    experts: str = ""
    tensor_parallel: int = 1
    seed: int = 0
    smooth: bool = False


class ModelSettings(Protocol):
    """What the settings of every workload here have."""

    @property
    def model(self) -> str: ...
    @property
    def precision(self) -> str: ...
    @property
    def attention(self) -> str: ...
    @property
    def seed(self) -> int: ...


def model_options(settings: ModelSettings, config: Any, **more: Any) -> ModelOptions:
    """Those of the settings; ``more`` are further fields, or others in place of those."""
    options = ModelOptions(
        config=config,
        model=settings.model,
        precision=settings.precision,
        attention=settings.attention,
        seed=settings.seed,
    )
    return replace(options, **more)


def checked_tensor_parallel(wanted: int, ranks: int, config: Any) -> int:
    """The size that ``wanted`` stands for; 0 = all ranks. Raises :class:`UnusableSettings`."""
    size = wanted or ranks
    if size not in {1, ranks}:
        raise UnusableSettings(
            f"--tp {wanted} with {ranks} ranks: it is 1, where each rank has a model of its own, "
            "or the number of ranks; start as many ranks"
        )
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    if heads % size:
        raise UnusableSettings(
            f"--tp {size} does not divide the {heads} key-value heads of this model"
        )
    return size


def load_model(options: ModelOptions, ranks: Ranks) -> Any:
    """A model for inference. Raises :class:`UnusableSettings` for a precision that the device has
    not, and ``torch.OutOfMemoryError``.
    """
    if options.precision == "fp8" and (reason := fp8_reason(ranks.device)):
        raise UnusableSettings(f"--precision fp8: {reason}")
    dtype = DTYPES[options.precision]
    where: dict[str, Any] = {"device_map": {"": ranks.device}}
    if options.tensor_parallel > 1:
        plan = DistributedConfig(tp_size=options.tensor_parallel, tp_plan="auto")
        where = {"distributed_config": plan}
    if options.experts:
        where["experts_implementation"] = options.experts
    model = _loaded(options, dtype, ranks.device, where)
    model.requires_grad_(False)
    if options.precision == "fp8":
        use_fp8(model)
    return model


def _loaded(
    options: ModelOptions, dtype: torch.dtype, device: torch.device, where: dict[str, Any]
) -> Any:
    where |= {"dtype": dtype, "attn_implementation": options.attention}
    if options.model:
        return AutoModelForCausalLM.from_pretrained(options.model, **where)
    made_in = DTYPES[options.weights_in or options.precision]
    slices = random_slices(options.config, made_in, device, options.seed, smooth=options.smooth)
    family = type(skeleton(options.config))
    return family.from_pretrained(None, config=options.config, state_dict=slices, **where)


def random_prompts(vocabulary: int, batch: int, tokens: int, device: torch.device) -> torch.Tensor:
    """(batch, tokens), the same on every rank and device."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(vocabulary, (batch, tokens), generator=generator).to(device)
