"""Checkpoints of ranks that save at the first SIGTERM and leave at the second."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench_lib.base.bed import make_bed
from bench_lib.base.command import MET, MISSED, REPEATS, Command, reported, write_json
from bench_lib.base.machine import describe
from bench_lib.sigterm import HOSTS, LAUNCHERS, SavingRun, saving_markdown, saving_runs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which launchers, and how many runs of each."""
    parser.add_argument("--runs", type=REPEATS, default=20, metavar="N", help="default: 20")
    parser.add_argument(
        "--launcher", action="append", choices=LAUNCHERS, help="repeatable; default: all"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="every run, for machines")
    parser.add_argument("--python", default=sys.executable, metavar="PROGRAM")


def run(arguments: argparse.Namespace) -> int:
    """Stop each launcher's ranks in mid-run, again and again."""
    facts = describe(arguments.python, None)
    runs: list[SavingRun] = []
    with (
        reported(runs, lambda: _report(arguments, facts, runs)),
        make_bed(HOSTS, arguments.python) as bed,
    ):
        runs.extend(saving_runs(bed, arguments.launcher or LAUNCHERS, arguments.runs))
    return MET if all(each.kept for each in runs) else MISSED


def _report(
    arguments: argparse.Namespace, facts: dict[str, str], runs: Sequence[SavingRun]
) -> None:
    write_json(arguments.json, facts, runs=[asdict(each) | {"kept": each.kept} for each in runs])
    print(saving_markdown(facts, runs), end="", flush=True)


COMMAND = Command(
    name="sigterm",
    help="checkpoints of ranks that save at the first SIGTERM and leave at the second",
    epilog="Needs what virtual hosts need; torchrun needs torch, ray needs ray.",
    add_arguments=add_arguments,
    run=run,
)
