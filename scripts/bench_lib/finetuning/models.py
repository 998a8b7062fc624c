"""Models with random weights, for benchmarks that need no download."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SEED = 11
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2-7b": {
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "max_position_embeddings": 32768,
        "rope_theta": 1e6,
    },
    "qwen2.5-32b": {
        "vocab_size": 152064,
        "hidden_size": 5120,
        "intermediate_size": 27648,
        "num_hidden_layers": 64,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "max_position_embeddings": 32768,
        "rope_theta": 1e6,
    },
    "qwen2.5-72b": {
        "vocab_size": 152064,
        "hidden_size": 8192,
        "intermediate_size": 29568,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "max_position_embeddings": 32768,
        "rope_theta": 1e6,
    },
    "qwen2-1.5b": {
        "vocab_size": 151936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rope_theta": 1e6,
    },
    "qwen2-0.5b": {
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rope_theta": 1e6,
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
    },
}


def qwen2(
    shape: str, device: torch.device, *, rank: int = 64, seed: int = SEED, **changes: Any
) -> Any:
    """A model of one of `SHAPES`, made where it is used, in bf16 on GPUs; its adapter as peft makes
    it, in fp32, of rank `rank` on all linear layers.
    """
    return _adapted(base_of(shape, device, seed=seed, **changes), rank).to(device)


def base_of(shape: str, device: torch.device, *, seed: int = SEED, **changes: Any) -> Any:
    """The same without an adapter; its values depend on the seed and the kind of device alone."""
    import torch

    torch.manual_seed(seed)
    with _made_in(_kind(device)), torch.device(device):
        return _base(shape, changes)


def qwen2_on_host(shape: str, device: torch.device, *, rank: int = 64, **changes: Any) -> Any:
    """The same for ranks that hold the frozen matrices together: these are on the host until they
    are taken from there, all else is on `device`. All layers begin with the same random values,
    since a host has no room for as many copies of a whole model as it has GPUs.
    """
    import torch
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RotaryEmbedding

    torch.manual_seed(SEED)
    kind = _kind(device)
    with _made_in(kind), torch.device("meta"):
        base = _base(shape, changes)
    drawn: dict[str, torch.Tensor] = {}
    for name, parameter in list(base.named_parameters()):
        layers, _, inner = name.partition("layers.")
        key = inner.partition(".")[2] or name
        on = torch.device("cpu") if layers and inner and parameter.dim() > 1 else device
        if key not in drawn:
            drawn[key] = torch.zeros(parameter.shape, dtype=kind, device=on)
            if "norm" in name:
                drawn[key].fill_(1.0)
            elif parameter.dim() > 1:
                drawn[key].normal_(std=base.config.initializer_range)
        module, _, own = name.rpartition(".")
        base.get_submodule(module)._parameters[own] = torch.nn.Parameter(  # noqa: SLF001
            drawn[key], requires_grad=False
        )
    with device:
        base.model.rotary_emb = Qwen2RotaryEmbedding(base.config)
    model = _adapted(base, rank)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(device, torch.float32)
    return model


def _kind(device: torch.device) -> torch.dtype:
    import torch

    return torch.bfloat16 if device.type == "cuda" else torch.float32


@contextmanager
def _made_in(kind: torch.dtype) -> Iterator[None]:
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(kind)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _base(shape: str, changes: dict[str, Any]) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(**(SHAPES[shape] | changes), tie_word_embeddings=False)
    config._attn_implementation = "sdpa"  # noqa: SLF001 - what from_pretrained sets
    return Qwen2ForCausalLM(config)


def _adapted(base: Any, rank: int) -> Any:
    from peft import LoraConfig, get_peft_model

    lora = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(base, lora)
