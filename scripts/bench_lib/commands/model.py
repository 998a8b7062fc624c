"""The cost model: its speed, and its errors on measured points that it was not fitted to."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from bench_lib.base.command import MET, MISSED, REPEATS, Command, print_report, reported, write_json
from bench_lib.base.machine import describe
from bench_lib.cost_model import (
    HeldOut,
    Speed,
    held_out_scores,
    measure_speed,
    missed,
    scores_markdown,
    speed_markdown,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How often a plan is made."""
    parser.add_argument("--repeats", type=REPEATS, default=15, metavar="N", help="default: 15")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure, for machines")


def run(arguments: argparse.Namespace) -> int:
    """Speed first, then each file of points."""
    facts = describe(sys.executable, None)
    speed, held = Speed(), list[HeldOut]()

    def report() -> None:
        scored = [{"file": name, "scores": [asdict(s) for s in found]} for name, _, found in held]
        write_json(arguments.json, facts, speed=asdict(speed), held_out=scored)
        print_report(facts, speed_markdown(speed) + "\n\n")
        for name, used, found in held:
            print(scores_markdown(name, used, found) + "\n", flush=True)

    with reported(speed, report):
        measure_speed(arguments.repeats, speed)
        held.extend(held_out_scores())
    right = not any(missed(score) for _, _, found in held for score in found)
    return MET if speed.met and right else MISSED


COMMAND = Command(
    name="model",
    help="the cost model: predictions a second, what they add to a plan, errors on held-out points",
    epilog="Contacts nobody, and needs no GPU: the points were measured by scripts/gpu_check.",
    add_arguments=add_arguments,
    run=run,
)
