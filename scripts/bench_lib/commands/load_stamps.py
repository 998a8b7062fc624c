"""How far the load test's client, AIPerf and vLLM are from what a server really did."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict

from bench_lib.base.command import (
    MET,
    MISSED,
    Command,
    print_report,
    reported,
    write_json,
)
from bench_lib.base.machine import describe
from bench_lib.load_peers import add_load_arguments, add_peer_arguments, given_peers
from bench_lib.load_stamps import (
    StampLoad,
    StampRun,
    measure_stamps,
    stamps_markdown,
    stamps_met,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The load, and who sends it beside ours."""
    add_load_arguments(parser, rate=10.0)
    add_peer_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Each client in turn, against the same stamping server."""
    facts = describe(sys.executable, None)
    peers = given_peers(arguments, "aiperf", "vllm")
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
