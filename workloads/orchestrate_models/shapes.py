"""Causal language models by their sizes, as transformers' configurations; nothing is fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig, LlamaConfig, OlmoeConfig, Qwen2Config

from .unusable import UnusableSettings

# Sizes as in their config.json on the model hub, but for gpt-40b: layers of Code Llama 34B, 54 in
# place of 48, and Llama 3's vocabulary, together 39.5 G parameters.
DENSE = {
    "tiny": LlamaConfig(
        hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=512, max_position_embeddings=2048,
    ),
    "qwen2-7b": Qwen2Config(
        hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4, vocab_size=152064, max_position_embeddings=32768,
    ),
    "llama-3.1-8b": LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, vocab_size=128256, max_position_embeddings=131072,
        rms_norm_eps=1e-5,
    ),
    "llama-2-13b": LlamaConfig(
        hidden_size=5120, intermediate_size=13824, num_hidden_layers=40, num_attention_heads=40,
        num_key_value_heads=40, vocab_size=32000, max_position_embeddings=4096, rms_norm_eps=1e-5,
    ),
    "gpt-40b": LlamaConfig(
        hidden_size=8192, intermediate_size=22016, num_hidden_layers=54, num_attention_heads=64,
        num_key_value_heads=8, vocab_size=128256, max_position_embeddings=16384,
        rms_norm_eps=1e-5,
    ),
}  # fmt: skip
MIXTURES = {
    "tiny-moe": AutoConfig.for_model(
        "qwen3_moe", hidden_size=64, intermediate_size=256, moe_intermediate_size=32, num_experts=8,
        num_experts_per_tok=2, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, vocab_size=512, max_position_embeddings=2048,
    ),
    # 6.9 G parameters, 64 experts, 8 of them for a token.
    "olmoe-7b": OlmoeConfig(
        hidden_size=2048, intermediate_size=1024, num_hidden_layers=16, num_attention_heads=16,
        num_key_value_heads=16, vocab_size=50304, num_experts=64, num_experts_per_tok=8,
        max_position_embeddings=4096,
    ),
    # 30.5 G parameters, 128 experts, 8 of them for a token.
    "qwen3-30b-a3b": AutoConfig.for_model(
        "qwen3_moe", hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768,
        num_experts=128, num_experts_per_tok=8, num_hidden_layers=48, num_attention_heads=32,
        num_key_value_heads=4, head_dim=128, vocab_size=151936, max_position_embeddings=40960,
        norm_topk_prob=True,
    ),
}  # fmt: skip


def model_config(shape: str, model: str) -> Any:
    """The configuration of ``model``, a folder or a name on the hub, or of the named ``shape``
    where that is empty. Raises :class:`UnusableSettings`.
    """
    if not model:
        return {**DENSE, **MIXTURES}[shape]
    place = Path(model).expanduser()
    try:
        return AutoConfig.from_pretrained(str(place) if place.exists() else model)
    except (OSError, ValueError) as error:
        first, *_ = str(error).splitlines() or [type(error).__name__]
        raise UnusableSettings(f"--model {model}: {first}") from None
