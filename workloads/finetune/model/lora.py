"""The model: a base from the hub, a folder or beside this file, with a LoRA adapter to train."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..base.settings import Settings
from ..base.world import World
from ..data.packing import Batch
from ..fused.engine import against_fused, find_group, with_engine
from ..fused.sharded import ShardGroup
from . import tiny_base

TOOL_TEMPLATE_PATH = Path(__file__).parent / "templates" / "tools_in_json.jinja"
WEIGHTS_AND_TEXT = ["*.json", "*.jinja", "*.model", "*.safetensors", "*.txt"]
EDGE = 256  # values at either end of a tensor that go into a fingerprint
RELOAD_PASSES = 2  # of `reload_difference`
# Two passes over the same weights on one device: what is left is the order of additions.
RELOAD_TOLERANCE = {"fp32": 1e-3, "bf16": 6e-2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainable:
    """A model with its adapter, its tokenizer and how to run it."""

    model: Any
    tokenizer: Any
    world: World
    settings: Settings
    group: ShardGroup | None = None  # the ranks that hold the frozen weights together

    @property
    def parameters(self) -> list[torch.nn.Parameter]:
        """The adapter's parameters: what is trained, averaged and saved."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def autocast(self) -> torch.autocast:
        """bf16 arithmetic around fp32 adapter weights, or nothing for fp32."""
        enabled = self.settings.dtype == "bf16"
        return torch.autocast(self.world.device.type, dtype=torch.bfloat16, enabled=enabled)

    def logits(self, batch: Batch) -> torch.Tensor:
        """Return logits [rows, predicting places, vocabulary] in fp32."""
        with self.autocast():
            output = self.model(
                input_ids=batch.input_ids,
                position_ids=batch.position_ids,
                use_cache=False,
                logits_to_keep=batch.predicting,
            )
        logits: torch.Tensor = output.logits.float()
        return logits


def prepare(settings: Settings, world: World) -> Trainable:
    """Load tokenizer and base, add the adapter; raises `RuntimeError` if ranks differ."""
    from peft import get_peft_model
    from transformers import AutoConfig

    source = _locate_base(settings, world)
    tokenizer = _load_tokenizer(source)
    config = AutoConfig.from_pretrained(source)
    # Ranks exchange gradients as their engine does: what speaks against it on one is so for all.
    against = max(world.gather(against_fused(settings, config, world.device)))
    settings = with_engine(settings, against)
    if against and world.device.type == "cuda":
        world.log(f"engine plain, not fused: {against}")
    group = find_group(config, settings, world)
    base = _load_base(source, settings, tokenizer, as_stored=group is not None)
    if group is None:
        base = base.to(world.device)
    torch.manual_seed(settings.seed)
    with _without_peft_warning():
        model = get_peft_model(base, adapter_config(settings))
    world.require_equal("the model (base and fresh adapter)", fingerprint(model))
    if group is not None:
        _move_all_but_matrices(model, world.device, _dtype(settings))
    return Trainable(model=model, tokenizer=tokenizer, world=world, settings=settings, group=group)


def _move_all_but_matrices(model: Any, device: torch.device, dtype: torch.dtype) -> None:
    """The layers' frozen matrices stay where they are: in files, of which each rank reads a part.
    What is moved and frozen gets the type `dtype`.
    """
    layers = model.get_base_model().model.layers
    matrices = {p for p in layers.parameters() if p.dim() > 1 and not p.requires_grad}
    for parameter in set(model.parameters()) - matrices:
        kept = parameter.dtype if parameter.requires_grad else dtype
        parameter.data = parameter.data.to(device, kept)
    for module in model.modules():
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to(device))


def adapter_config(settings: Settings) -> Any:
    """LoRA on every linear projection, but not on the embeddings and the output layer."""
    from peft import LoraConfig

    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )


def fingerprint(model: torch.nn.Module) -> str:
    """Digest of names, shapes and both ends of every parameter: cheap also for billions."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        flat = parameter.detach().flatten()
        ends = torch.cat([flat[:EDGE], flat[-EDGE:]]).float().cpu()
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(ends.numpy().tobytes())
    return digest.hexdigest()


def save_adapter(trainable: Trainable, folder: Path) -> None:
    """Write adapter and tokenizer in peft's own format."""
    trainable.model.save_pretrained(folder, save_embedding_layers=False)
    trainable.tokenizer.save_pretrained(folder)


def reload_difference(trainable: Trainable, folder: Path, batch: Batch) -> float:
    """Take the adapter off, load the saved one, return the largest change of a logit of `batch`.

    The base stays where it is, so this needs no memory for a second one. Uses up `trainable`.
    """
    from peft import PeftModel

    trainable.model.eval()
    with torch.no_grad():
        before = trainable.logits(batch)
        base = trainable.model.unload()
        with _without_peft_warning():
            model = PeftModel.from_pretrained(base, str(folder))
        model = model.to(trainable.world.device).eval()
        reloaded = Trainable(
            model=model,
            tokenizer=trainable.tokenizer,
            world=trainable.world,
            settings=trainable.settings,
        )
        return float((reloaded.logits(batch) - before).abs().max())


@contextmanager
def _without_peft_warning() -> Iterator[None]:
    """peft 0.21 asks transformers 5 for a property by its old name, which warns."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield


def _locate_base(settings: Settings, world: World) -> str:
    """Return what `from_pretrained` takes for the base; one rank a node fetches it from the hub."""
    if not settings.model:
        return str(tiny_base.verified_folder())
    is_folder = Path(settings.model).is_dir()
    if world.leads_node and not is_folder:
        from huggingface_hub import snapshot_download

        snapshot_download(settings.model, allow_patterns=WEIGHTS_AND_TEXT)
    world.barrier()
    return settings.model


def _load_tokenizer(source: str) -> Any:
    from transformers import AutoTokenizer, PreTrainedConfig

    # The empty configuration leaves the choice of class to the tokenizer's own files. Going by the
    # model type, qwen2, would split the small base's text by the rules of Qwen2 instead.
    tokenizer = AutoTokenizer.from_pretrained(
        source, config=PreTrainedConfig(), padding_side="left"
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if "tools" not in str(tokenizer.chat_template):
        # Qwen2's own template, unlike that of its successors, drops the tools without a word.
        tokenizer.chat_template = TOOL_TEMPLATE_PATH.read_text(encoding="utf-8")
    return tokenizer


def _dtype(settings: Settings) -> torch.dtype:
    return torch.bfloat16 if settings.dtype == "bf16" else torch.float32


def _load_base(source: str, settings: Settings, tokenizer: Any, *, as_stored: bool) -> Any:
    """On the host. Tensors that are used `as_stored` are views of the mapped files: they take page
    cache, which ranks of a node have in common, and only where they are read.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    base = AutoModelForCausalLM.from_pretrained(
        source,
        dtype="auto" if as_stored else _dtype(settings),
        attn_implementation=settings.attention,
    )
    # The base's own defaults may sample or penalise repetition; scores want the plain argmax.
    base.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=settings.max_new_tokens,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    if settings.gradient_checkpointing:
        base.gradient_checkpointing_enable({"use_reentrant": False})
    return base
