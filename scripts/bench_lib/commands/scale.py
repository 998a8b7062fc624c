"""What a further node costs the coordinator, from 8 to 4,000."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench_lib.base.bed import make_bed
from bench_lib.base.command import MET, MISSED, REPEATS, Command, bounded, reported, write_json
from bench_lib.base.machine import describe
from bench_lib.base.report import table
from bench_lib.scale import HOSTS, RunCost, SshCost, all_met, run_costs, scale_markdown, ssh_costs

SIZES = (8, 32, 128, 256)
MODELS = (50, 200, 1000, 4000)
KINDS = ("ssh", "memory")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which sizes of which kind, and how often."""
    parser.add_argument("--only", choices=KINDS, help="default: both")
    parser.add_argument("--hosts", type=bounded(2, 256), nargs="+", default=SIZES, metavar="N")
    parser.add_argument("--nodes", type=bounded(2, 65_536), nargs="+", default=MODELS, metavar="N")
    parser.add_argument("--repeats", type=REPEATS, default=3, metavar="N", help="default: 3")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every run, for machines")
    parser.add_argument("--python", default=sys.executable, metavar="PROGRAM")


def run(arguments: argparse.Namespace) -> int:
    """Models first, which need nothing; then real connections."""
    facts = describe(arguments.python, None)
    ssh: list[SshCost] = []
    runs: list[RunCost] = []
    found = _Found(ssh, runs)
    with reported(found, lambda: _report(arguments, facts, ssh, runs)):
        if arguments.only != "ssh":
            runs.extend(run_costs(sorted(set(arguments.nodes)), arguments.repeats))
        if arguments.only != "memory":
            with make_bed(HOSTS, arguments.python) as bed:
                ssh.extend(ssh_costs(bed, sorted(set(arguments.hosts)), arguments.repeats))
    return MET if all_met(ssh, runs) else MISSED


class _Found:
    """Whether anything was measured so far."""

    def __init__(self, *lists: Sequence[object]) -> None:
        self._lists = lists

    def __len__(self) -> int:
        return sum(map(len, self._lists))


def _report(
    arguments: argparse.Namespace,
    facts: dict[str, str],
    ssh: Sequence[SshCost],
    runs: Sequence[RunCost],
) -> None:
    write_json(
        arguments.json, facts, ssh=[asdict(each) for each in ssh], runs=[asdict(r) for r in runs]
    )
    print(table(("what", "value"), list(facts.items())) + "\n")
    print(scale_markdown(ssh, runs), end="", flush=True)


COMMAND = Command(
    name="scale",
    help="what a further node costs the coordinator: real connections, and thousands in memory",
    epilog="Real connections need root on Linux and what virtual hosts need.",
    add_arguments=add_arguments,
    run=run,
)
