"""Change points over nights: false alarms and power, against Otava and the naive rule."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from bench_lib.base.command import MET, MISSED, Command, reported, write_json
from bench_lib.base.machine import describe
from bench_lib.nights.detection import NoiseResult, in_order, measure_detection
from bench_lib.nights.detection_report import detection_markdown, shortfalls
from bench_lib.nights.null_table import print_null_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which peer, or the null distribution instead."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="every rate, for machines")
    parser.add_argument(
        "--otava", type=Path, metavar="PYTHON", help="of an environment that has apache-otava 0.8.0"
    )
    parser.add_argument(
        "--null", action="store_true", help="print the table of the null distribution instead"
    )


def run(arguments: argparse.Namespace) -> int:
    """Inject changes into noise and count what each detector says."""
    if arguments.null:
        print_null_table()
        return MET
    facts = describe(sys.executable, None)
    results: list[NoiseResult] = []
    correlated: dict[str, float] = {}

    def report() -> None:
        found = in_order(results, correlated)
        write_json(arguments.json, facts, **asdict(found))
        print(detection_markdown(facts, found), end="", flush=True)

    with reported(results, report):
        measure_detection(arguments.otava, results, correlated)
    return MISSED if shortfalls(results) else MET


COMMAND = Command(
    name="detection",
    help="change points over nights: false alarms and power, against Otava and the naive rule",
    epilog="Makes all series from seeds; needs a package index for Otava, or --otava.",
    add_arguments=add_arguments,
    run=run,
)
