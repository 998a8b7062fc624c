"""Load tests and power baselines of the built-in engine through the product, on one GPU.

A model of Qwen2-7B's shape with random weights is served, so nothing is downloaded. Each run has a
time limit of its own, and its figures are written before the next one begins.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_lib.models import SHAPES

BUDGET_S = 150.0
END_OF_TEXT = "<|endoftext|>"  # where it is missing, Qwen2's tokenizer adds one
CHAT = "{% for message in messages %}{{ message.content }}\n{% endfor %}"
SMALL = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
ENGINE = "engine_arguments=--random-weights --slots {slots} --context 512"

# Runs the verb `run` of the product with these words, as scripts/gpu_check does; its result object.
Orchestrate = Callable[..., dict[str, object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadRun:
    """One run: its workload and settings, and the most seconds that it may take."""

    name: str
    workload: str
    settings: tuple[str, ...]
    most_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadScale:
    """What is served, and how much is asked of it. ``rate`` is in requests/s, within what the
    engine can do.
    """

    shape: Mapping[str, Any]
    gpus: bool
    slots: int
    rate: float
    prompt_words: int
    output_tokens: int
    duration_s: float
    processes: int
    power: tuple[str, ...]


ON_GPU = LoadScale(
    shape=SHAPES["qwen2-7b"],
    gpus=True,
    slots=256,
    rate=40.0,
    prompt_words=24,  # of four letters and a blank, and a token each
    output_tokens=128,
    duration_s=15.0,
    processes=4,
    power=("shape=qwen2-7b", "precisions=bf16", "batches=1,16,128", "prompt_tokens=128",
           "new_tokens=128", "seconds=4", "gpu_hour_price=3"),
)  # fmt: skip
ON_CPU = LoadScale(
    shape=SMALL,
    gpus=False,
    slots=4,
    rate=5.0,
    prompt_words=4,
    output_tokens=8,
    duration_s=12.0,
    processes=1,
    power=("batches=1,4", "seconds=0.2"),
)


def planned_runs(scale: LoadScale, model: Path) -> tuple[LoadRun, ...]:
    """Within capacity; far beyond it, which ends as soon as it is found; rows of `power`."""
    served = (
        f"model={model}",
        ENGINE.format(slots=scale.slots),
        f"prompt_words={scale.prompt_words}",
        f"output_tokens={scale.output_tokens}",
        f"processes={scale.processes}",
    )
    most_s = 120.0 if not scale.gpus else 60.0
    within = (*served, f"rate={scale.rate}", f"duration={scale.duration_s}")
    beyond = (*served, f"rate={16 * scale.rate}", "duration=20", "warmup=64")
    return (
        LoadRun(name="within", workload="loadtest", settings=within, most_s=most_s),
        LoadRun(name="beyond", workload="loadtest", settings=beyond, most_s=most_s),
        LoadRun(name="power", workload="power", settings=scale.power, most_s=most_s),
    )


def measure_serving(scale: LoadScale, out: Path, orchestrate: Orchestrate) -> None:
    """All runs that the time allows; `serving_load.json` in ``out`` has what each came to."""
    began = time.monotonic()
    model, inventory = out.parent / "serving-model", out / "one-gpu.yaml"
    make_model_files(model, scale.shape)
    inventory.write_text(json.dumps(inventory_of(scale.gpus)))
    found: dict[str, Any] = {}
    for run in planned_runs(scale, model):
        left_s = BUDGET_S - (time.monotonic() - began)
        if scale.gpus and left_s < run.most_s / 2:
            found[run.name] = {"skipped": f"{left_s:.0f} s are left"}
        else:
            found[run.name] = _one_run(run, inventory, out, orchestrate)
        (out / "serving_load.json").write_text(json.dumps(found, indent=1))
        print(f"== {run.name}: {json.dumps(found[run.name])}", flush=True)


def _one_run(
    run: LoadRun, inventory: Path, out: Path, orchestrate: Orchestrate
) -> dict[str, object]:
    began = time.monotonic()
    words = ["-C", str(inventory), "-W", run.workload, "--budget", f"run={run.most_s:g}"]
    settings = [word for setting in run.settings for word in ("--set", setting)]
    try:
        result = orchestrate(out, f"load-{run.name}", *words, *settings)
    except Exception as error:  # noqa: BLE001 - the other runs are measured all the same
        return {"error": f"{type(error).__name__}: {error}"}
    return {"seconds": time.monotonic() - began, **dict(_kept(result))}


def _kept(result: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """What is read of a result."""
    for name in ("run_id", "status", "exit_code", "failure", "energy", "cost", "timings"):
        yield name, result.get(name)
    yield "metrics", {name: metric["value"] for name, metric in result["metrics"].items()}


def inventory_of(gpus: bool) -> dict[str, Any]:
    """This machine as one node, with its first GPU if it has any, and a price."""
    node = {
        "name": "here",
        "transport": "local",
        "python": {"interpreter": sys.executable},
        "gpus": {"indices": [0]} if gpus else 0,
        "price_per_hour": 3,
    }
    return {"name": "one-gpu", "currency": "USD", "nodes": [node]}


def make_model_files(folder: Path, shape: Mapping[str, Any]) -> None:
    """A Qwen2 model without weights: its configuration, and a tokenizer that makes a token of each
    byte and has as many as the model.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "qwen2", "tie_word_embeddings": False, **shape}
    (folder / "config.json").write_text(json.dumps(config))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    fillers = [f"w{place}" for place in range(len(letters) + 1, shape["vocab_size"])]
    words = [*letters, *fillers, END_OF_TEXT]
    vocabulary = {word: place for place, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    about = {"tokenizer_class": "TokenizersBackend", "chat_template": CHAT}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
