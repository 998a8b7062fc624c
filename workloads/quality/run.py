#!/usr/bin/env python3
"""Perplexity and accuracy of a model on lines of JSON, with their statistical error.

    python run.py
    python run.py --model meta-llama/Llama-3.1-8B --precision bf16 --dataset held-out.jsonl

Every rank scores its lines with a model of its own, or all divide one (--tp 0). Rank 0 writes
quality.json, with each line's score.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

if not __package__:  # a script: its folder is a package then, too, and the kit lies beside it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    __package__ = Path(__file__).resolve().parent.name

import torch
from transformers import AutoTokenizer

import orchestrate_kit as kit
from orchestrate_models.devices import device_name
from orchestrate_models.loading import (
    DTYPES,
    checked_tensor_parallel,
    load_model,
    model_options,
)
from orchestrate_models.memory_fit import inference_need, require_fit
from orchestrate_models.outputs import write_document
from orchestrate_models.ranks import Ranks, run_on_ranks
from orchestrate_models.shapes import model_config
from orchestrate_models.unusable import UnusableSettings

from .dataset import BUNDLED, Item, read_items
from .estimates import Estimate, accuracy, perplexity
from .scoring import Encode, Score, Scorer, bytes_as_tokens
from .settings import Settings

RESULT = "quality.json"


def run(settings: Settings, ranks: Ranks) -> None:
    """Load, score, report. Raises ``UnusableSettings`` before anything is loaded."""
    dataset = Path(settings.dataset).expanduser() if settings.dataset else BUNDLED
    items = read_items(dataset, settings.lines)
    config = model_config(settings.shape, settings.model)
    settings = replace(settings, tp=checked_tensor_parallel(settings.tp, ranks.size, config))
    longest = min(settings.max_tokens, config.max_position_embeddings)
    need = inference_need(
        config,
        DTYPES[settings.precision],
        tensor_parallel=settings.tp,
        batch=1,
        tokens=longest,
        logits=longest,
    )
    require_fit(need, ranks.device, ranks.local_size)
    encode = tokenizer_of(settings.model)
    options = model_options(settings, config, tensor_parallel=settings.tp)
    model = load_model(options, ranks)
    scorer = Scorer(model, encode, ranks.device, longest)
    scores = score_all(scorer, items, settings, ranks)
    if ranks.rank == 0:
        report(settings, ranks, scores)


def tokenizer_of(model: str) -> Encode:
    """Its own, or bytes for random weights. Raises :class:`UnusableSettings`."""
    if not model:
        return bytes_as_tokens
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(Path(model).expanduser()))
    except (OSError, ValueError) as error:
        first, *_ = str(error).splitlines() or [type(error).__name__]
        raise UnusableSettings(f"--model {model}: its tokenizer: {first}") from None

    def encode(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    return encode


def score_all(
    scorer: Scorer, items: Sequence[Item], settings: Settings, ranks: Ranks
) -> list[Score]:
    """In the order of the lines. Ranks with models of their own take every n-th line."""
    share = items[ranks.rank :: ranks.size] if settings.tp == 1 else items
    counts = ranks.counts(settings.tp)
    scores = []
    with kit.measured_window(str(ranks.device)) as window:
        for done, item in enumerate(share, start=1):
            score = scorer.score(item)
            scores.append(score)
            if counts:
                window.count(requests=1, tokens=score.tokens)
            kit.progress(done, len(share), "line")
        ranks.meet()
    everyone = ranks.gather(scores)
    together = [score for own in everyone for score in own] if settings.tp == 1 else scores
    return sorted(together, key=lambda score: score.line)


def estimates_of(scores: Sequence[Score]) -> dict[str, Estimate]:
    """Those of which there are lines."""
    texts = [score for score in scores if score.tokens]
    answers = [score.right for score in scores if score.right is not None]
    found: dict[str, Estimate] = {}
    if texts:
        found["perplexity"] = perplexity([s.nats for s in texts], [s.tokens for s in texts])
    if answers:
        found["accuracy"] = accuracy(sum(answers), len(answers))
    return found


def report(settings: Settings, ranks: Ranks, scores: Sequence[Score]) -> None:
    found = estimates_of(scores)
    units = {"perplexity": "", "accuracy": "of questions"}
    for name, one in found.items():
        kit.metric(name, one.value, units[name])
        for part, value in (("error", one.error), ("low", one.low), ("high", one.high)):
            if value is not None:
                kit.metric(f"{name}_{part}", value, units[name])
    kit.metric("cut_lines", sum(score.cut > 0 for score in scores), "lines")
    document = {
        "schema_version": 1,
        "settings": asdict(settings),
        "device": device_name(ranks.device),
        "torch": torch.__version__,
        "tokens_are_bytes": not settings.model,
        **{name: asdict(one) for name, one in found.items()},
        "lines": [asdict(score) for score in scores],
    }
    write_document(RESULT, document)


def main() -> None:
    """Run as the command line says; settings that cannot be used here end with status 2."""
    settings = kit.parse(Settings)
    run_on_ranks("quality", settings.device, partial(run, settings))


if __name__ == "__main__":
    main()
