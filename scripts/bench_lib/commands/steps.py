"""What an event costs the run's state machine, by the number of nodes."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from bench_lib.base.command import (
    MET,
    MISSED,
    REPEATS,
    Command,
    bounded,
    print_report,
    reported,
    write_json,
)
from bench_lib.base.machine import describe
from bench_lib.steps import Steps, measure_steps, median_steps, steps_markdown

SIZES = (50, 200, 1000)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many nodes, and how often."""
    nodes = bounded(2, 65_536)
    parser.add_argument("--nodes", type=nodes, nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--repeats", type=REPEATS, default=5, metavar="N", help="default: 5")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every median, for machines")


def run(arguments: argparse.Namespace) -> int:
    """Replay a run of each size in turn, and print both tables."""
    facts = describe(sys.executable, None)
    taken: dict[int, list[Steps]] = {}

    def report() -> None:
        found = median_steps(taken)
        write_json(arguments.json, facts, steps=[asdict(steps) for steps in found])
        print_report(facts, steps_markdown(found))

    with reported(taken, report):
        measure_steps(sorted(set(arguments.nodes)), arguments.repeats, taken)
    return MET if all(steps.met for steps in median_steps(taken)) else MISSED


COMMAND = Command(
    name="steps",
    help="what an event costs the run's state machine, by the number of nodes",
    epilog="Contacts nobody.",
    add_arguments=add_arguments,
    run=run,
)
