"""The start of ranks in containers of podman, against the same run without."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from bench_lib.base.bed import make_bed
from bench_lib.base.command import MET, MISSED, REPEATS, Command, reported
from bench_lib.base.machine import describe
from bench_lib.base.report import Measured, judged, markdown
from bench_lib.base.rounds import perform
from bench_lib.containers import HOSTS, USER, contained_launch


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How often, and under which interpreter."""
    parser.add_argument("--repeats", type=REPEATS, default=7, metavar="N", help="default: 7")
    parser.add_argument("--python", default=sys.executable, metavar="PROGRAM")


def run(arguments: argparse.Namespace) -> int:
    """Both ways in turn, in every round."""
    facts, found = describe(arguments.python, None), list[Measured]()
    with (
        reported(found, lambda: print(markdown(facts, found[-1:]), end="", flush=True)),
        tempfile.TemporaryDirectory(prefix="orchestrate-images-") as images,
        make_bed(HOSTS, arguments.python, [images], USER) as bed,
    ):
        scenario = contained_launch(bed, Path(images))
        for samples in perform(scenario, arguments.repeats, bed.hosts_cpu_s):
            verdicts = judged(scenario, samples)
            found.append(Measured(scenario=scenario, samples=samples, verdicts=verdicts))
    met = all(verdict.met and verdict.enough for verdict in found[-1].verdicts)
    return MET if met else MISSED


COMMAND = Command(
    name="containers",
    help="the start of ranks in containers of podman, against the same run without",
    epilog="Needs what virtual hosts need, and: podman, crun, uidmap.",
    add_arguments=add_arguments,
    run=run,
)
