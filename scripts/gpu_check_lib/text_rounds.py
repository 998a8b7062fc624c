"""Local rounds on text: a base, a tokenizer and conversations made of the files of this machine.

Each conversation asks for one file, by its path, and is answered with its beginning. Files that
equal one another are taken once, and no conversation is trained on twice, so that a training loss
is one of text that was not seen before; the workload holds out some of the files altogether.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench_lib.finetuning.models import SHAPES

from .random_models import write_random_model

WORKLOADS = Path(__file__).resolve().parents[2] / "workloads"
TEMPLATE = WORKLOADS / "finetune" / "model" / "tiny" / "chat_template.jinja"
SUFFIXES = frozenset({".md", ".py", ".pyi", ".rst", ".txt"})
MARK = "<|"  # begins the template's special tokens: a file with it could end its own turn
CHARACTERS_PER_TOKEN = 2  # fewer than text has, so that the beginning of a file fits into a row
MOST_PER_TOKEN = 8  # so many are collected for each token that is needed
SHORTEST = 300  # characters; shorter files are mostly imports
TOKENIZER_CHARACTERS = 6_000_000  # enough for the pairs of a small vocabulary
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>")
SPECIAL_ROLES = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
GATES = ("    gate: {max: 0.5}\n", "    gate: {min: 0.8}\n")
TEXT_WORKLOAD = "text_tuning"
# figure -> (lowest, highest) ratio of local rounds to healthy; None: only shown
GOALS: dict[str, tuple[float | None, float | None]] = {
    "tokens_per_s": (0.95, None),
    "eval_loss": (None, 1.02),
    "train_loss_final": (None, None),
    "step_time_p50": (None, None),
    "watts": (None, None),
    "tokens_per_joule": (None, None),
    "mfu": (None, None),
    "round_wait": (None, None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How large the training is. Shape: as transformers' Qwen2Config takes it."""

    shape: Mapping[str, Any]
    vocabulary: int
    steps: int
    rows: int  # in a step of all nodes
    length: int  # tokens in a row
    held_out: int  # conversations
    settings: Sequence[str]

    @property
    def needed_tokens(self) -> int:
        """No row has more than `length`: so many are enough for all rows."""
        return self.steps * self.rows * self.length


# Preset qwen2-7b, at a learning rate that teaches random weights something. 8 rows of 4096 tokens
# take two H100 0.88 s, and an exchange of 161 M values 4 s beside that.
ON_GPUS = Scale(
    shape=SHAPES["qwen2-7b"],
    vocabulary=16_384,
    steps=120,
    rows=8,
    length=4096,
    held_out=64,
    settings=("preset=qwen2-7b", "micro_batch=2", "learning_rate=2e-4"),
)
# Where both nodes are imitated on one GPU, a smaller shape has room twice.
SHAPE = "GPU_CHECK_TEXT_SHAPE"
# The same steps where there is no GPU, to try them.
ON_CPUS = Scale(
    shape={
        "vocab_size": 2048,
        "hidden_size": 96,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
    },
    vocabulary=2048,
    steps=60,
    rows=8,
    length=256,
    held_out=48,
    settings=("micro_batch=4", "learning_rate=2e-3", "round_steps=5", "round_exchange=changes"),
)


def scale_on_gpus() -> Scale:
    """As above, or of the shape that the environment names."""
    return replace(ON_GPUS, shape=SHAPES[os.environ.get(SHAPE, "qwen2-7b")])


def source_folders() -> list[Path]:
    """Python's own library, with its licences, and what is installed beside it."""
    paths = sysconfig.get_paths()
    names = dict.fromkeys(paths[name] for name in ("stdlib", "purelib", "platlib"))
    return [Path(name) for name in names if Path(name).is_dir()]


def find_files(folders: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """The files of text under these folders, each with its name in its folder, in a fixed order."""
    for folder in folders:
        for place, below, names in os.walk(folder):
            below.sort()
            for name in sorted(names):
                path = Path(place, name)
                if path.suffix in SUFFIXES:
                    yield str(path.relative_to(folder)), path


def collect_texts(folders: Sequence[Path], each: int, most: int) -> list[tuple[str, str]]:
    """The names and beginnings, of `each` characters, of files of text; no two of them alike, until
    they are `most` characters. In the order of their digests, so that neighbours are strangers.
    """
    found: dict[str, tuple[str, str]] = {}
    size = 0
    for name, path in find_files(folders):
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(each)
        if len(text) < SHORTEST or MARK in text:
            continue
        digest = hashlib.sha256("".join(text.split()).encode()).hexdigest()
        size += 0 if digest in found else len(text)
        found[digest] = (name, text)
        if size >= most:
            break
    return [found[digest] for digest in sorted(found)]


def train_tokenizer(texts: Sequence[str], vocabulary: int, folder: Path) -> Any:
    """A byte-level BPE of these texts, saved as from_pretrained reads it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL_ROLES)
    fast.chat_template = TEMPLATE.read_text(encoding="utf-8")
    fast.save_pretrained(folder)
    return tokenizer


def write_conversations(path: Path, texts: Sequence[tuple[str, str]]) -> None:
    """One line each: a path is asked for, and the file's beginning is the answer."""
    with path.open("w", encoding="utf-8") as lines:
        for name, text in texts:
            messages = [
                {"role": "user", "content": f"Write {name}"},
                {"role": "assistant", "content": text},
            ]
            lines.write(json.dumps({"messages": messages}) + "\n")


def make_data(scale: Scale, folder: Path, model: Path) -> Path:
    """The conversations, and the model's tokenizer. Raises ``SystemExit`` if this machine has too
    little text to show each only once.
    """
    cut = scale.length * CHARACTERS_PER_TOKEN
    texts = collect_texts(source_folders(), cut, scale.needed_tokens * MOST_PER_TOKEN)
    sample, size = [], 0
    for _, text in texts:
        sample.append(text)
        size += len(text)
        if size > TOKENIZER_CHARACTERS:
            break
    tokenizer = train_tokenizer(sample, scale.vocabulary, model)
    counts = [len(found.ids) for found in tokenizer.encode_batch([text for _, text in texts])]
    # A fifth of a row is room for what the template adds, and for the path.
    fitting = [at for at, count in enumerate(counts) if count <= scale.length * 4 // 5]
    chosen, tokens = [], 0
    for at in fitting:
        if tokens >= scale.needed_tokens:
            break
        chosen.append(texts[at])
        tokens += counts[at]
    if tokens < scale.needed_tokens:
        raise SystemExit(f"{tokens} tokens of text on this machine, not {scale.needed_tokens}")
    more = [texts[at] for at in fitting[len(chosen) : len(chosen) + 2 * scale.held_out]]
    data = folder / "conversations.jsonl"
    write_conversations(data, [*chosen, *more])
    print(f"   {len(chosen) + len(more)} files, {tokens} tokens to train on", flush=True)
    return data


def make_workload(folder: Path) -> Path:
    """`finetune` without the gates that are for its own generated conversations."""
    target = folder / TEXT_WORKLOAD
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(WORKLOADS / "finetune", target, ignore=shutil.ignore_patterns("__pycache__"))
    declaration = target / "workload.yaml"
    text = declaration.read_text(encoding="utf-8").replace(
        "name: finetune", f"name: {TEXT_WORKLOAD}"
    )
    for gate in GATES:
        assert gate in text
        text = text.replace(gate, "")
    declaration.write_text(text, encoding="utf-8")
    return target


def prepare_job(scale: Scale, folder: Path) -> list[str]:
    """The words of the command line that train on text; what they name lies in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / "base"
    with ThreadPoolExecutor() as pool:
        making = pool.submit(write_random_model, scale.shape, model)
        data = make_data(scale, folder, model)
        making.result()
    settings = [
        *scale.settings,
        f"model={model}",
        f"dataset={data}",
        f"steps={scale.steps}",
        f"global_batch={scale.rows}",
        f"sequence_length={scale.length}",
        f"eval_conversations={scale.held_out}",
        "eval_every=0",
        "checkpoint_every=0",
    ]
    return ["-W", str(make_workload(folder)), *(f"--set={setting}" for setting in settings)]


def tokens_of(run: Path) -> int:
    """What all ranks together trained on, by the loss curve that came home."""
    (curve,) = run.glob("artifacts/**/loss.jsonl")
    return sum(json.loads(line)["tokens"] for line in curve.read_text().splitlines())


def compare(
    healthy: Mapping[str, Any], apart: Mapping[str, Any], tokens: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """A record for each figure: both values, their ratio and whether it is as it should be."""
    yield {
        "name": "tokens trained on",
        "healthy": tokens[0],
        "local_rounds": tokens[1],
        "ratio": tokens[1] / tokens[0],
        "met": tokens[0] == tokens[1],
    }
    for name, (low, high) in GOALS.items():
        one, other = (result["metrics"].get(name, {}).get("value") for result in (healthy, apart))
        record = {"name": name, "healthy": one, "local_rounds": other}
        if one and other is not None:
            ratio = other / one
            record["ratio"] = ratio
            if (low, high) != (None, None):
                record["met"] = (low is None or ratio >= low) and (high is None or ratio <= high)
        yield record
