"""How far the load test's client, AIPerf and vLLM are from what a server really did."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from bench_lib.base.command import (
    MET,
    MISSED,
    REPEATS,
    RUNS,
    Command,
    print_report,
    reported,
    write_json,
)
from bench_lib.base.machine import describe
from bench_lib.load_stamps import (
    StampLoad,
    StampRun,
    measure_stamps,
    stamps_markdown,
    stamps_met,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The load, and who sends it beside ours."""
    parser.add_argument("--repeats", type=REPEATS, default=3, metavar="N", help="default: 3")
    parser.add_argument(
        "--requests", type=RUNS, default=200, metavar="N", help="of each client (default: 200)"
    )
    parser.add_argument(
        "--rate", type=float, default=10.0, metavar="R", help="requests/s (default: 10)"
    )
    parser.add_argument("--aiperf", type=Path, metavar="VENV", help="where AIPerf is")
    parser.add_argument("--vllm", type=Path, metavar="VENV", help="where vLLM is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every round, for machines")


def run(arguments: argparse.Namespace) -> int:
    """Each client in turn, against the same stamping server."""
    facts = describe(sys.executable, None)
    given = {"aiperf": arguments.aiperf, "vllm": arguments.vllm}
    peers = {name: venv.resolve() for name, venv in given.items() if venv is not None}
    load = StampLoad(rate=arguments.rate, requests=arguments.requests)
    runs: list[StampRun] = []

    def report() -> None:
        write_json(arguments.json, facts, runs=[asdict(each) for each in runs])
        print_report(facts, stamps_markdown(runs))

    with reported(runs, report):
        runs.extend(measure_stamps(load, arguments.repeats, peers))
    return MET if stamps_met(runs) else MISSED


COMMAND = Command(
    name="load-stamps",
    help="how far the load test's client and others are from what a server really did",
    epilog="Needs Linux, taskset and two processors; --aiperf and --vllm name environments.",
    add_arguments=add_arguments,
    run=run,
)
