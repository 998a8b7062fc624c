"""The public table of LoRA throughput: one command fills in what a machine can measure."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench_lib.base.command import MET, MISSED, Command
from bench_lib.finetuning.lora_page import page
from bench_lib.finetuning.lora_table import Plan, fill, found_gpus, head_of_tree, read_rows

DOCS = Path(__file__).parents[3] / "docs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the table is, and what of it is measured."""
    parser.add_argument("--csv", type=Path, default=DOCS / "lora-throughput.csv", metavar="FILE")
    parser.add_argument("--page", type=Path, default=DOCS / "lora-throughput.md", metavar="FILE")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="everything measured, line by line"
    )
    parser.add_argument("--python", default=sys.executable, metavar="PROGRAM")
    parser.add_argument("--gpus", type=int, metavar="N", help="at most (default: all)")
    parser.add_argument(
        "--lora-ranks", type=int, nargs="+", default=[64, 16], metavar="R", help="default: 64 16"
    )
    parser.add_argument("--models", nargs="+", metavar="MODEL", help="of the plan's (default: all)")
    parser.add_argument("--no-unsloth", action="store_true", help="leave that peer out")
    parser.add_argument("--commit", metavar="NAME", help="of a copy without a history")
    parser.add_argument(
        "--budget", type=float, default=3600.0, metavar="S", help="seconds in all (default: 3600)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure, row by row; each is in the table as soon as it is known."""
    gpus, memory = found_gpus(arguments.python)
    plan = Plan(
        gpus=gpus if arguments.gpus is None else min(gpus, arguments.gpus),
        memory_bytes=memory,
        lora_ranks=tuple(arguments.lora_ranks),
        models=None if arguments.models is None else tuple(arguments.models),
        unsloth=not arguments.no_unsloth,
        commit=arguments.commit or head_of_tree(),
    )
    try:
        whole = fill(
            plan, arguments.python, arguments.csv, budget_s=arguments.budget, log=arguments.json
        )
    finally:
        rows = read_rows(arguments.csv)
        text = page(rows, arguments.csv.name)
        arguments.page.write_text(text, encoding="utf-8")
        print(text, end="", flush=True)
    return MET if whole else MISSED


COMMAND = Command(
    name="lora",
    help="LoRA throughput: the table in docs/lora-throughput.md, with its peers",
    epilog="Needs torch, transformers, peft and liger-kernel; unsloth where it is installed. "
    "Without GPUs it runs a tiny model.",
    add_arguments=add_arguments,
    run=run,
)
