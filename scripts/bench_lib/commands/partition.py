"""Divisible work between unequal hosts: leases against an even split."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench_lib.base.bed import make_bed
from bench_lib.base.command import MET, MISSED, REPEATS, Command, bounded, reported, write_json
from bench_lib.base.machine import describe
from bench_lib.base.stats import MIN_SAMPLES
from bench_lib.partition import HOSTS, Partition, Round, figures, partition_markdown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How much work, and how often."""
    parser.add_argument("--repeats", type=REPEATS, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--samples", type=bounded(50, 100_000), default=300, metavar="N", help="default: 300"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="every round, for machines")
    parser.add_argument(
        "--python",
        default=sys.executable,
        metavar="PROGRAM",
        help="for ours and the workers; needs the runtime's packages (default: this one)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Solo rates, leases and the even split, in turn."""
    facts = describe(arguments.python, None)
    rounds: list[Round] = []
    with (
        reported(rounds, lambda: _report(arguments, facts, rounds)),
        make_bed(HOSTS, arguments.python) as bed,
    ):
        rounds.extend(Partition(bed=bed, samples=arguments.samples).rounds(arguments.repeats))
    missed = [figure for figure in figures(rounds) if figure.word == "MISSED"]
    return MISSED if missed or len(rounds) < MIN_SAMPLES else MET


def _report(arguments: argparse.Namespace, facts: dict[str, str], rounds: Sequence[Round]) -> None:
    write_json(arguments.json, facts, rounds=[asdict(each) for each in rounds])
    print(partition_markdown(facts, rounds), end="", flush=True)


COMMAND = Command(
    name="partition",
    help="divisible work between unequal hosts: leases against an even split",
    epilog="Needs what virtual hosts need: root on Linux, openssh-server, iproute2, iptables.",
    add_arguments=add_arguments,
    run=run,
)
