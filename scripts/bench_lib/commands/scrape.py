"""A scrape of the metrics of a live run on many nodes, beside its limits."""

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
from bench_lib.scrape import Scrape, measure_scrapes, scrape_markdown, summarize_scrapes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many nodes, and how often."""
    nodes = bounded(1, 4096)
    parser.add_argument("--nodes", type=nodes, default=1000, metavar="N", help="default: 1000")
    parser.add_argument("--repeats", type=REPEATS, default=20, metavar="N", help="default: 20")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure, for machines")
    parser.add_argument("--python", default=sys.executable, metavar="PROGRAM")


def run(arguments: argparse.Namespace) -> int:
    """Fill a home, scrape it, and print both tables."""
    facts = describe(arguments.python, None)
    taken: list[Scrape] = []

    def report() -> None:
        found = summarize_scrapes(arguments.nodes, taken)
        write_json(arguments.json, facts, scrape=asdict(found))
        print_report(facts, scrape_markdown(found))

    with reported(taken, report):
        measure_scrapes(
            arguments.python, nodes=arguments.nodes, scrapes=arguments.repeats, taken=taken
        )
    return MET if summarize_scrapes(arguments.nodes, taken).met else MISSED


COMMAND = Command(
    name="scrape",
    help="metrics of a live run on 1,000 nodes: time and memory of a scrape",
    epilog="Needs prometheus-client; contacts nobody.",
    add_arguments=add_arguments,
    run=run,
)
