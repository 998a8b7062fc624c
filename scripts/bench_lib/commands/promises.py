"""The times that are promised under faults, held to the promise itself."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from bench_lib.base.command import FAILED, MET, MISSED, REPEATS, Command, reported, write_json
from bench_lib.base.machine import describe
from bench_lib.promises import Recorded, measure_promises, promises_markdown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which promises, and how often."""
    parser.add_argument("--repeats", type=REPEATS, default=1, metavar="N", help="default: 1")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every time, for machines")
    parser.add_argument("--python", default=sys.executable, metavar="PROGRAM")
    parser.add_argument(
        "tests", nargs="*", metavar="TEST", help="a file, folder or test of these (default: all)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the tests that measure them, one by one."""
    facts = describe(arguments.python, None)
    with tempfile.TemporaryDirectory(prefix="orchestrate-bench-") as scratch:
        recorded = Recorded(Path(scratch, "promises.jsonl"))

        def report() -> None:
            found = recorded.promises()
            times = [asdict(time) | {"kept": time.kept} for time in found.times]
            write_json(arguments.json, facts, times=times)
            print(promises_markdown(facts, found), end="", flush=True)

        with reported(recorded, report):
            found = measure_promises(arguments.python, arguments.repeats, arguments.tests, recorded)
    if not found.kept:
        return MISSED
    return MET if found.sound else FAILED


COMMAND = Command(
    name="promises",
    help="the times that are promised under faults, held to the promise itself",
    epilog="Runs the tests that measure them, alone: let the machine do nothing else. "
    "Needs what the tests need.",
    add_arguments=add_arguments,
    run=run,
)
