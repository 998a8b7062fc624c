"""The web page of all runs: first paint, and what its readers cost."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
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
from bench_lib.page import PageRow, page_markdown, page_rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How long a history, how often it is painted, and how long readers are watched."""
    parser.add_argument("--runs", type=RUNS, default=10_000, metavar="N", help="default: 10000")
    parser.add_argument("--repeats", type=REPEATS, default=5, metavar="N", help="default: 5")
    parser.add_argument(
        "--seconds", type=REPEATS, default=30, metavar="S", help="of each window (default: 30)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="every median, for machines")
    parser.add_argument("--python", default=sys.executable, metavar="PROGRAM")


def run(arguments: argparse.Namespace) -> int:
    """Paint, then watch a live run without and with readers in turn."""
    facts = describe(arguments.python, None)
    rows: list[PageRow] = []
    with reported(rows, lambda: _report(arguments, facts, rows)):
        rows.extend(
            page_rows(
                arguments.python,
                runs=arguments.runs,
                repeats=arguments.repeats,
                seconds=arguments.seconds,
            )
        )
    return MET if all(row.met for row in rows) else MISSED


def _report(arguments: argparse.Namespace, facts: dict[str, str], rows: Sequence[PageRow]) -> None:
    write_json(arguments.json, facts, rows=[asdict(row) for row in rows])
    print_report(facts, page_markdown(rows))


COMMAND = Command(
    name="page",
    help="the web page: first paint with a long history, and what readers cost a live run",
    epilog="Needs Linux, the extra serve, playwright and chromium; contacts nobody.",
    add_arguments=add_arguments,
    run=run,
)
