"""Fine-tuning: our trainer against the usual transformers + peft script."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from bench_lib.base.command import MET, MISSED, Command, reported
from bench_lib.finetuning.finetune import finetune, finetune_markdown, met


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many ranks, and what they train."""
    parser.add_argument("--ranks", type=int, default=1, metavar="N", help="GPUs (default: 1)")
    parser.add_argument("--python", default=sys.executable, metavar="PROGRAM")
    parser.add_argument("--json", type=Path, metavar="FILE", help="everything measured")
    parser.add_argument(
        "options", nargs="*", metavar="OPTION", help="for the ranks, after --; see finetune_ranks"
    )


def run(arguments: argparse.Namespace) -> int:
    """Both trainers in turn, on the same rows."""
    records: list[dict[str, Any]] = []

    def report() -> None:
        if arguments.json:
            arguments.json.write_text(json.dumps(records, indent=1) + "\n")
        print(finetune_markdown(records), end="", flush=True)

    with reported(records, report):
        finetune(arguments.python, arguments.ranks, arguments.options, records)
    return MET if met(records) else MISSED


COMMAND = Command(
    name="finetune",
    help="fine-tuning: our trainer against the usual transformers + peft script",
    epilog="Needs torch, transformers and peft; without GPUs it runs a tiny model.",
    add_arguments=add_arguments,
    run=run,
)
