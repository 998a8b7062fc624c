"""Streamed requests per second and memory of the load test's client, beside AIPerf and vLLM."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from bench_lib.base.command import MET, MISSED, REPEATS, RUNS, Command, reported, write_json
from bench_lib.base.machine import describe
from bench_lib.load_client import ClientRun, clients_markdown, clients_met, measure_clients


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many requests of each client, and how often."""
    parser.add_argument("--repeats", type=REPEATS, default=3, metavar="N", help="default: 3")
    parser.add_argument(
        "--requests", type=RUNS, default=20_000, metavar="N", help="of ours (default: 20000)"
    )
    parser.add_argument(
        "--peer-requests", type=RUNS, default=2000, metavar="N", help="of others (default: 2000)"
    )
    parser.add_argument(
        "--aiperf", type=Path, metavar="VENV", help="default: a temporary one, with pip"
    )
    parser.add_argument(
        "--vllm", type=Path, metavar="VENV", help="an environment of vLLM's; default: not measured"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="every round, for machines")


def run(arguments: argparse.Namespace) -> int:
    """The clients in turn, against the same trivial server."""
    facts = describe(sys.executable, None)
    runs: list[ClientRun] = []
    with reported(runs, lambda: _report(arguments, facts, runs)):
        runs.extend(
            measure_clients(
                arguments.requests,
                arguments.peer_requests,
                arguments.repeats,
                arguments.aiperf,
                arguments.vllm,
            )
        )
    return MET if clients_met(runs) else MISSED


def _report(
    arguments: argparse.Namespace, facts: dict[str, str], runs: Sequence[ClientRun]
) -> None:
    write_json(arguments.json, facts, runs=[asdict(each) for each in runs])
    if len({each.client for each in runs}) > 1:  # else there is nothing to compare
        print(clients_markdown(facts, runs), end="", flush=True)


COMMAND = Command(
    name="load-client",
    help="streamed requests per second and memory of the load test's client, beside others",
    epilog="Needs Linux, taskset, two processors, and a package index or --aiperf.",
    add_arguments=add_arguments,
    run=run,
)
