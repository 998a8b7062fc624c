"""Which engine `engine=auto` is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from finetune.base.settings import Settings
from finetune.fused.engine import against_fused, with_engine
from tests.workloads.declared import declared

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "options,config,device,engine,against",
    [
        ({}, {}, "cuda", "fused", ""),
        ({}, {}, "cpu", "plain", "no GPU"),
        ({"dtype": "fp32"}, {}, "cuda", "plain", "dtype fp32"),
        ({"attention": "eager"}, {}, "cuda", "plain", "attention eager"),
        ({"lora_dropout": 0.1}, {}, "cuda", "plain", "dropout"),
        ({"gradient_checkpointing": True}, {}, "cuda", "plain", "checkpointing"),
        ({}, {"hidden_act": "gelu"}, "cuda", "plain", "gelu"),
        ({}, {"head_dim": 96}, "cuda", "plain", "heads of 96"),
        ({"engine": "plain"}, {}, "cuda", "plain", ""),
        ({"engine": "fused"}, {}, "cpu", "fused", ""),
        ({"fp8": True}, {}, "cpu", "fused", ""),
        ({"shard": "on"}, {}, "cpu", "fused", ""),
    ],
)
def test_the_engine_that_suits_is_taken(
    options: dict[str, Any], config: dict[str, Any], device: str, engine: str, against: str
) -> None:
    """Where `auto` finds something in the way of the fused one, it is told."""
    pytest.importorskip("triton", reason="hardware: no build of Triton for this machine")
    settings = declared(Settings, **({"dtype": "bf16"} | options))
    kind = LlamaConfig(**({"num_attention_heads": 4, "hidden_size": 64} | config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CC", "cc")
        why = against_fused(settings, kind, torch.device(device))
    assert with_engine(settings, why).engine == engine
    assert against in why
    assert bool(against) == bool(why)


def test_without_a_compiler_kernels_could_not_be_called(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="hardware: no build of Triton for this machine")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    settings = declared(Settings, dtype="bf16")
    assert "C compiler" in against_fused(settings, LlamaConfig(), torch.device("cuda"))
