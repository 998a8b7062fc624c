"""Models with random weights as from_pretrained reads them: nothing is downloaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench_lib.finetuning.models import SHAPES

from .gpus import has_gpus

TINY = Path(__file__).resolve().parents[2] / "workloads" / "finetune" / "model" / "tiny"
MAKING_S = 300


def write_random_model(shape: Mapping[str, Any], folder: Path) -> None:
    """Random weights of a shape that Qwen2Config takes, made on the GPU if there is one."""
    code = (
        "import json, sys, torch; from transformers import Qwen2Config, Qwen2ForCausalLM\n"
        "cuda = torch.cuda.is_available(); torch.manual_seed(11)\n"
        "c = Qwen2Config(**json.loads(sys.argv[2]), tie_word_embeddings=False)\n"
        "torch.set_default_dtype(torch.bfloat16 if cuda else torch.float32)\n"
        "torch.set_default_device('cuda' if cuda else 'cpu')\n"
        "Qwen2ForCausalLM(c).save_pretrained(sys.argv[1])\n"
    )
    argv = [sys.executable, "-c", code, str(folder), json.dumps(dict(shape))]
    subprocess.run(argv, check=True, timeout=MAKING_S)


def ensure_large_model(folder: Path) -> Path:
    """Of Qwen2-7B's shape with the small base's tokenizer; made once."""
    if folder.exists():
        return folder
    if not has_gpus():
        raise SystemExit("a model of Qwen2-7B's shape is made on a GPU, and there is none")
    write_random_model(SHAPES["qwen2-7b"], folder)
    for file in TINY.iterdir():
        if "token" in file.name or file.suffix == ".jinja":
            shutil.copy(file, folder)
    return folder
