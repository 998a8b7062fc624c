"""unsloth by its own recipe: FastLanguageModel over a model's folder, bf16, autocast, its fused
loss. Importing it patches transformers and peft for the whole process, so it has one to itself.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from bench_lib.finetuning.models import base_of
from bench_lib.finetuning.rows import WORDS

from .work import LEARNING_RATE, Script, Work, in_parallel, trained

MICRO_BATCH = 2
TOKENIZER = Path(__file__).parents[3] / "workloads" / "finetune" / "model" / "tiny"
PROJECTIONS = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "UNSLOTH_COMPILE_LOCATION": str(Path(tempfile.gettempdir(), "unsloth_compiled_cache")),
}


def prepare_import() -> None:
    """Before anything imports transformers. Raises `ImportError` where unsloth is missing."""
    os.environ.update(QUIET)
    import unsloth  # noqa: F401 - it patches what is imported next


def put_folder(model: Any, start: list[torch.Tensor], rank: int, folder: Path) -> None:
    """What unsloth reads of the model of another process: its configuration, any tokenizer, and the
    values with which the adapter of this rank starts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model.get_base_model().config.save_pretrained(folder)
    for path in TOKENIZER.iterdir():
        if path.name.startswith("tokenizer"):
            shutil.copy(path, folder)
    torch.save(start, folder / f"adapter-{rank}.pt")


class Made:
    """In place of the loader of weights: they are made where they are used, the same as in the
    other process, since files of 15 GB would say no more.

    unsloth sets the padding token's embedding to zero, and here it is a word like the others. At
    the beginning of a row it stays zero through all layers of a model without trained biases, and
    each norm multiplies its gradient by a thousand (1 / sqrt(eps)), until it is no number.
    """

    def __init__(self, shape: str, device: torch.device) -> None:
        self._shape, self._device = shape, device
        self._words = torch.empty(0)

    def from_pretrained(self, *_: Any, **__: Any) -> Any:
        """As transformers calls it."""
        model = base_of(self._shape, self._device)
        self._words = _words_of(model).clone()
        return model

    def put_words_back(self, model: Any) -> None:
        """After unsloth's own changes."""
        _words_of(model).copy_(self._words)


def _words_of(model: Any) -> torch.Tensor:
    found: torch.Tensor = model.get_input_embeddings().weight.detach()[:WORDS]
    return found


class Unsloth:
    """No checkpointing, as of `Tuned`: where memory allows, it is the faster."""

    def __init__(self, shape: str, folder: Path, rank: int, work: Work) -> None:
        import unsloth.models.llama
        from unsloth import FastLanguageModel

        self.work = work
        made = Made(shape, work.world.device)
        unsloth.models.llama.AutoModelForCausalLM = made
        base, _ = FastLanguageModel.from_pretrained(
            str(folder),
            max_seq_length=work.settings.sequence_length,
            dtype=torch.bfloat16,
            load_in_4bit=False,
            local_files_only=True,
            device_map={"": work.world.local_rank},
        )
        made.put_words_back(base)
        start = torch.load(folder / f"adapter-{rank}.pt", map_location=work.world.device)
        self.model = FastLanguageModel.get_peft_model(
            base,
            r=rank,
            target_modules=PROJECTIONS,
            lora_alpha=2 * rank,
            lora_dropout=0.0,
            bias="none",
            use_gradient_checkpointing=False,
            max_seq_length=work.settings.sequence_length,
        )
        parameters = trained(self.model)
        with torch.no_grad():
            for parameter, value in zip(parameters, start, strict=True):
                parameter.copy_(value)
        kinds = {str(p.dtype) for p in parameters}
        self.description = f"FastLanguageModel, adapters in {', '.join(kinds)}, no checkpointing"
        parallel = in_parallel(self.model, work)
        optimiser = torch.optim.AdamW(
            parameters, lr=LEARNING_RATE, weight_decay=0.0, fused=work.on_gpu
        )
        self._script = Script(work, parallel, parameters, optimiser, MICRO_BATCH, self._loss)
        self.model.train()

    def step(self, step: int) -> float:
        return self._script.step(step)

    def _loss(self, ids: torch.Tensor) -> torch.Tensor:
        with torch.autocast(ids.device.type, torch.bfloat16):
            loss: torch.Tensor = self._script.parallel(input_ids=ids, labels=ids).loss
        return loss

    def close(self) -> None:
        self._script.close()
