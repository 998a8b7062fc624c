"""How the small base model is made: a Qwen2 architecture, pre-trained on generated chats.

Deterministic on one kind of processor and one version of torch: one thread, one seed, generated
text. Elsewhere the rounding differs, and with it the last digits of the weights.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from finetune.data import packing
from finetune.data.tool_catalogue import load_catalogue

from . import pretraining_text
from .pretraining_text import Chat
from .tokenizer import train_tokenizer

Report = Callable[[int, float], None]
TOKENIZER_CHATS = 300
WARMUP_STEPS = 20
WEIGHTS = "model.safetensors"
STORED = torch.bfloat16  # half the size of fp32; both types that a run computes in hold it exactly


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that the model follows from, besides the generated text."""

    seed: int = 0
    steps: int = 600
    chats_per_step: int = 20
    vocabulary_size: int = 2048  # at most
    hidden_size: int = 96
    intermediate_size: int = 256
    heads: int = 4
    layers: int = 2
    initializer_range: float = 0.08
    final_norm: float = 4.0
    embedding_rate: float = 5e-3
    matrix_rate: float = 1e-2

    def digest(self) -> str:
        """Identity of the numbers above and of the text: stored in the file of the weights."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode())
        for text in self._tokenizer_texts(self.chats()):
            digest.update(text.encode() + b"\0")
        return digest.hexdigest()

    def chats(self) -> Iterator[Chat]:
        """Yield endlessly many chats: the tokenizer learns from the first, the model from the
        following.
        """
        return pretraining_text.generate_chats(load_catalogue(), self.seed)

    def tokenizer(self, chats: Iterator[Chat]) -> Any:
        """Train the tokenizer on the vocabulary and the next of `chats`."""
        return train_tokenizer(self._tokenizer_texts(chats), self.vocabulary_size)

    @staticmethod
    def _tokenizer_texts(chats: Iterator[Chat]) -> Iterator[str]:
        yield from pretraining_text.vocabulary_text(load_catalogue())
        for chat in itertools.islice(chats, TOKENIZER_CHATS):
            yield chat.prompt
            yield chat.answer


def make(
    folder: Path,
    recipe: Recipe,
    report: Report = lambda _step, _loss: None,
    stored: torch.dtype = STORED,
) -> None:
    """Write tokenizer, configuration and weights to `folder`; `report` gets each step's loss."""
    from safetensors.torch import save_file
    from transformers.utils import logging

    logging.disable_progress_bar()
    chats = recipe.chats()
    tokenizer = recipe.tokenizer(chats)
    with _one_thread():
        model = _new_model(recipe, tokenizer)
        _pretrain(model, tokenizer, chats, recipe, report)
    model.config.dtype = stored
    model.config.save_pretrained(folder)
    weights = {name: weight.to(stored) for name, weight in model.state_dict().items()}
    del weights["lm_head.weight"]  # tied to the embeddings
    metadata = {"format": "pt", "recipe": recipe.digest()}
    save_file(weights, folder / WEIGHTS, metadata=metadata)
    (folder / WEIGHTS).chmod(0o644)  # written for its owner alone
    tokenizer.save_pretrained(folder)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The order of additions must not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _new_model(recipe: Recipe, tokenizer: Any) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(recipe.seed)
    config = Qwen2Config(
        architectures=[Qwen2ForCausalLM.__name__],
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=4096,
        initializer_range=recipe.initializer_range,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        # The embeddings are small and, with an adapter, never change: without this the logits of
        # tokens that pre-training does not show, like <tool_call>, could not grow large enough.
        model.model.norm.weight.fill_(recipe.final_norm)
        for layer in model.model.layers:
            # Attention starts out passing on what it attends to, so copying, which the whole task
            # rests on, is learnt several times sooner than from independent random matrices.
            layer.self_attn.o_proj.weight.copy_(layer.self_attn.v_proj.weight.T)
    return model


def _pretrain(
    model: Any, tokenizer: Any, chats: Iterator[Chat], recipe: Recipe, report: Report
) -> None:
    """Train all parameters on the answers of chats, on a cosine from a short warm-up to zero."""
    optimisers = _optimisers(model, recipe)
    for step in range(recipe.steps):
        scale = (
            min(1, (step + 1) / WARMUP_STEPS) * (1 + math.cos(math.pi * step / recipe.steps)) / 2
        )
        for optimiser, peak in optimisers:
            optimiser.param_groups[0]["lr"] = peak * scale
        loss = mean_loss(model, tokenizer, list(itertools.islice(chats, recipe.chats_per_step)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, _ in optimisers:
            optimiser.step()
        model.zero_grad()
        report(step + 1, loss.item())


def mean_loss(model: Any, tokenizer: Any, chats: list[Chat]) -> torch.Tensor:
    """Loss in nats per token of the chats' answers."""
    batch = _batch(chats, tokenizer)
    wanted = batch.labels != packing.IGNORED
    hidden = model.model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    return functional.cross_entropy(model.lm_head(hidden[wanted]), batch.labels[wanted])


def _optimisers(model: Any, recipe: Recipe) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices, which needs half the steps here; AdamW for everything else."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named if p.ndim != 2 or "embed" in name]
    muon = torch.optim.Muon(matrices, lr=recipe.matrix_rate, weight_decay=0.0)
    adam = torch.optim.AdamW(others, lr=recipe.embedding_rate, betas=(0.9, 0.95), weight_decay=0.0)
    return [(muon, recipe.matrix_rate), (adam, recipe.embedding_rate)]


def _batch(chats: list[Chat], tokenizer: Any) -> packing.Batch:
    rows = []
    for chat in chats:
        prompt, answer = (tokenizer(text)["input_ids"] for text in (chat.prompt, chat.answer))
        rows.append((packing.text_example(prompt, answer),))
    return packing.collate(rows, pad=tokenizer.pad_token_id)
