"""The README's first command in a fresh clone, against that of another commit."""

from __future__ import annotations

import argparse
import sys

from bench_lib.command import MET, MISSED, REPEATS, Command
from bench_lib.first_run import GOAL, first_run_markdown, first_runs, ratios
from bench_lib.machine import describe
from bench_lib.report import table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which two commits, and how often."""
    parser.add_argument("--commit", default="HEAD", metavar="C", help="ours (default: HEAD)")
    parser.add_argument("--against", required=True, metavar="C", help="a commit of this repository")
    parser.add_argument("--repeats", type=REPEATS, default=3, metavar="N", help="default: 3")


def run(arguments: argparse.Namespace) -> int:
    """Both commits in turn."""
    ours, other = arguments.commit, arguments.against
    runs = list(first_runs((ours, other), arguments.repeats))
    facts = list(describe(sys.executable, None).items())
    print(table(("what", "value"), facts) + "\n", flush=True)
    print(first_run_markdown(runs, ours, other), flush=True)
    return MET if all(ratio <= GOAL for ratio in ratios(runs, ours, other).values()) else MISSED


COMMAND = Command(
    name="first-run",
    help="the README's first command in a fresh clone, against that of another commit",
    epilog="Needs git and a package index; a run takes minutes and 1.5 GB of disk.",
    add_arguments=add_arguments,
    run=run,
)
