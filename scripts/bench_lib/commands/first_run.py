"""The README's first command in a fresh clone, against that of another commit."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bench_lib.base.command import MET, MISSED, REPEATS, Command, reported
from bench_lib.base.machine import describe
from bench_lib.base.report import table
from bench_lib.first_run import GOAL, FirstRun, first_run_markdown, first_runs, ratios


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which two commits, and how often."""
    parser.add_argument("--commit", default="HEAD", metavar="C", help="ours (default: HEAD)")
    parser.add_argument("--against", required=True, metavar="C", help="a commit of this repository")
    parser.add_argument("--repeats", type=REPEATS, default=3, metavar="N", help="default: 3")


def run(arguments: argparse.Namespace) -> int:
    """Both commits in turn."""
    ours, other = arguments.commit, arguments.against
    runs: list[FirstRun] = []
    with reported(runs, lambda: _report(runs, ours, other)):
        runs.extend(first_runs((ours, other), arguments.repeats))
    return MET if all(ratio <= GOAL for ratio in ratios(runs, ours, other).values()) else MISSED


def _report(runs: Sequence[FirstRun], ours: str, other: str) -> None:
    print(table(("what", "value"), list(describe(sys.executable, None).items())), flush=True)
    if len({each.commit for each in runs}) > 1:  # else there is nothing to compare
        print("\n" + first_run_markdown(runs, ours, other), flush=True)


COMMAND = Command(
    name="first-run",
    help="the README's first command in a fresh clone, against that of another commit",
    epilog="Needs git and a package index; a run takes minutes and 1.5 GB of disk.",
    add_arguments=add_arguments,
    run=run,
)
