"""The commands of `scripts/tiny_base`."""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from finetune.model.tiny_base import FOLDER, SUMS, sums_of, verified_folder

from .recipe import WEIGHTS, Recipe, Report, make, mean_loss

STEPS_PER_REPORT = 50
COMPARED_CHATS = 200
TOLERANCE = 0.05  # of the loss, where processors or versions of torch round differently


def main() -> int:
    """Returns the exit status: 0 it is made, or what is there follows from the recipe; else 1."""
    parser = argparse.ArgumentParser(prog="tiny_base", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make", help=f"make the model anew, in place of {FOLDER}")
    commands.add_parser("check", help="make it in a temporary folder and compare; takes as long")
    command = parser.parse_args().command
    with tempfile.TemporaryDirectory(prefix="tiny-base-") as scratch:
        made = Path(scratch, "tiny")
        made.mkdir()
        make(made, Recipe(), _reporter(Recipe().steps))
        (made / SUMS).write_text(sums_of(made))
        if command == "check":
            return check(made, verified_folder())
        shutil.rmtree(FOLDER, ignore_errors=True)
        shutil.copytree(made, FOLDER)
    print(f"{FOLDER}: made; what it holds is listed in {SUMS}")
    return 0


def check(made: Path, kept: Path) -> int:
    """0 if both folders hold the same, or weights that learnt the same with another rounding."""
    names = {file.name for folder in (made, kept) for file in folder.iterdir()} - {SUMS}
    unequal = sorted(name for name in names if not _same(made / name, kept / name))
    if not unequal:
        print("identical, file by file")
        return 0
    if unequal != [WEIGHTS]:
        print(f"differs from what the recipe makes: {', '.join(unequal)}", file=sys.stderr)
        return 1
    losses = [loss_of(folder) for folder in (made, kept)]
    print(f"the weights differ in rounding; loss {losses[0]:.4f}, of those kept {losses[1]:.4f}")
    return int(abs(losses[0] - losses[1]) > TOLERANCE * losses[1])


def loss_of(folder: Path) -> float:
    """Loss of a saved model, in nats per token, on chats that it was not trained on."""
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    chats = Recipe(seed=Recipe().seed + 1).chats()
    with torch.no_grad():
        return float(mean_loss(model, tokenizer, list(itertools.islice(chats, COMPARED_CHATS))))


def _same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def _reporter(total: int) -> Report:
    began = time.monotonic()

    def report(step: int, loss: float) -> None:
        if step % STEPS_PER_REPORT == 0:
            spent = time.monotonic() - began
            print(f"{spent:6.0f} s  {step}/{total} steps, loss {loss:.3f}", file=sys.stderr)

    return report
