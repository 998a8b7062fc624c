"""A small Qwen2-architecture base model and its tokenizer, made here instead of downloaded.

Deterministic on one kind of processor: one thread, one seed, generated text. Made once per node and
kept in a cache, under a name that holds the digest of everything that goes into it.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

import orchestrate_kit as kit

from ..base.settings import Settings
from ..data import generated_conversations, packing, pretraining_text
from ..data.pretraining_text import Chat
from ..data.tool_catalogue import CATALOGUE_PATH, load_catalogue

TEMPLATE_PATH = Path(__file__).parent / "templates" / "compact.jinja"
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>")
SPECIAL_ROLES = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
VOCABULARY_SIZE = 2048
HIDDEN_SIZE = 96
LAYERS = 2
CHATS_PER_STEP = 20
FINAL_NORM = 4.0
EMBEDDING_RATE = 5e-3
MATRIX_RATE = 1e-2
WARMUP_STEPS = 20
STEPS_PER_REPORT = 50


def cached_base(settings: Settings) -> Path:
    """Return the folder where this node keeps, or will keep, the base for these settings."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orchestrate-finetune"
    return Path(settings.cache_dir or root) / f"base-{recipe_digest(settings)[:16]}"


def recipe_digest(settings: Settings) -> str:
    """Identity of everything that the base depends on: code, catalogue, libraries, settings."""
    digest = hashlib.sha256(f"{settings.base_steps} {settings.seed}".encode())
    for library in ("torch", "transformers", "tokenizers"):
        digest.update(version(library).encode())
    modules = (__file__, pretraining_text.__file__, generated_conversations.__file__)
    for source in (*modules, CATALOGUE_PATH, TEMPLATE_PATH):
        digest.update(Path(source).read_bytes())
    return digest.hexdigest()


def ensure_base(settings: Settings) -> Path:
    """Make the base unless it is in the cache already; return its folder, which is complete."""
    target = cached_base(settings)
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        with _published(target) as folder:
            _make(folder, settings)
    return target


def replace_base(target: Path, files: dict[str, bytes]) -> Path:
    """Put these files beside the base of this node, under the digest of their content."""
    digest = hashlib.sha256(b"".join(files[name] for name in sorted(files))).hexdigest()
    target = target.with_name(f"{target.name}-from-{digest[:16]}")
    if not target.exists():
        with _published(target) as folder:
            for name, content in files.items():
                (folder / name).write_bytes(content)
    return target


@contextmanager
def _published(target: Path) -> Iterator[Path]:
    """Give a folder to fill that appears under its name only when it is complete."""
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        yield folder
        try:
            folder.rename(target)
        except OSError:  # another run on this node was faster: its content is the same
            if not target.exists():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make(folder: Path, settings: Settings) -> None:
    from safetensors.torch import save_file
    from transformers.utils import logging

    catalogue = load_catalogue()
    chats = pretraining_text.generate_chats(catalogue, settings.seed)
    sample = [text for chat in itertools.islice(chats, 300) for text in (chat.prompt, chat.answer)]
    tokenizer = _train_tokenizer([*pretraining_text.vocabulary_text(catalogue), *sample])
    logging.disable_progress_bar()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the order of additions must not depend on the number of cores
    try:
        model = _new_model(len(tokenizer), tokenizer, settings.seed)
        _pretrain(model, tokenizer, chats, settings.base_steps)
    finally:
        torch.set_num_threads(threads)
    # Not model.save_pretrained: in a process group it writes on rank 0 only, and every node makes
    # its own base.
    model.config.save_pretrained(folder)
    weights = model.state_dict()
    del weights["lm_head.weight"]  # tied to the embeddings
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(folder)


def _train_tokenizer(texts: list[str]) -> Any:
    """Train a byte-level BPE in which words, 0 to 99 and 0.0 to 9.9 are single tokens.

    Spaces belong to no word, so a word is the same token in a sentence and in JSON.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = Regex(r"_?\p{L}+|\p{N}\.\p{N}|\p{N}{1,2}|[^\p{L}\p{N}]+?(?=_?\p{L}|\p{N}|$)")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pieces, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **SPECIAL_ROLES,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = TEMPLATE_PATH.read_text(encoding="utf-8")
    return fast


def _new_model(vocabulary_size: int, tokenizer: Any, seed: int) -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(seed)
    config = Qwen2Config(
        architectures=[Qwen2ForCausalLM.__name__],
        vocab_size=vocabulary_size,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=256,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4096,
        initializer_range=0.08,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    with torch.no_grad():
        # The embeddings are small and, with an adapter, never change: without this the logits of
        # tokens that pre-training does not show, like <tool_call>, could not grow large enough.
        model.model.norm.weight.fill_(FINAL_NORM)
        for layer in model.model.layers:
            # Attention starts out passing on what it attends to, so copying, which the whole task
            # rests on, is learnt several times sooner than from independent random matrices.
            layer.self_attn.o_proj.weight.copy_(layer.self_attn.v_proj.weight.T)
    return model


def _pretrain(model: Any, tokenizer: Any, chats: Iterator[Chat], steps: int) -> None:
    """Train all parameters on the answers of chats, on a cosine from a short warm-up to zero."""
    optimisers = _optimisers(model)
    for step in range(steps):
        scale = min(1, (step + 1) / WARMUP_STEPS) * (1 + math.cos(math.pi * step / steps)) / 2
        for optimiser, peak in optimisers:
            optimiser.param_groups[0]["lr"] = peak * scale
        batch = _batch(list(itertools.islice(chats, CHATS_PER_STEP)), tokenizer)
        wanted = batch.labels != packing.IGNORED
        hidden = model.model(input_ids=batch.input_ids, use_cache=False).last_hidden_state
        functional.cross_entropy(model.lm_head(hidden[wanted]), batch.labels[wanted]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, _ in optimisers:
            optimiser.step()
        model.zero_grad()
        if kit.rank() == 0 and (step + 1) % STEPS_PER_REPORT == 0:
            kit.progress(step + 1, steps, "step of making the base")


def _optimisers(model: Any) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices, which needs half the steps here; AdamW for everything else."""
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named if p.ndim != 2 or "embed" in name]
    return [
        (torch.optim.Muon(matrices, lr=MATRIX_RATE, weight_decay=0.0), MATRIX_RATE),
        (
            torch.optim.AdamW(others, lr=EMBEDDING_RATE, betas=(0.9, 0.95), weight_decay=0.0),
            EMBEDDING_RATE,
        ),
    ]


def _batch(chats: list[Chat], tokenizer: Any) -> packing.Batch:
    rows = []
    for chat in chats:
        prompt, answer = (tokenizer(text)["input_ids"] for text in (chat.prompt, chat.answer))
        rows.append((packing.text_example(prompt, answer),))
    return packing.collate(rows, pad=tokenizer.pad_token_id)
