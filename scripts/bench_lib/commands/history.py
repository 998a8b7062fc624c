"""A history of many runs: how long commands take, beside MLflow's local store."""

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
from bench_lib.history import Row, history_markdown, history_rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How large a history, and how often each question."""
    parser.add_argument("--runs", type=RUNS, default=100_000, metavar="N", help="default: 100000")
    parser.add_argument("--figures", type=REPEATS, default=50, metavar="N", help="default: 50")
    parser.add_argument("--repeats", type=REPEATS, default=5, metavar="N", help="default: 5")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every median, for machines")
    parser.add_argument("--python", default=sys.executable, metavar="PROGRAM")
    parser.add_argument(
        "--mlflow", type=Path, metavar="VENV", help="default: a temporary one, with pip"
    )


def run(arguments: argparse.Namespace) -> int:
    """Fill both stores and ask them the same questions in turn."""
    facts = describe(arguments.python, None)
    rows: list[Row] = []
    with reported(rows, lambda: _report(arguments, facts, rows)):
        rows.extend(
            history_rows(
                arguments.python,
                arguments.mlflow,
                runs=arguments.runs,
                figures=arguments.figures,
                repeats=arguments.repeats,
            )
        )
    return MET if all(row.met for row in rows) else MISSED


def _report(arguments: argparse.Namespace, facts: dict[str, str], rows: Sequence[Row]) -> None:
    write_json(arguments.json, facts, rows=[asdict(row) for row in rows])
    print_report(facts, history_markdown(rows))


COMMAND = Command(
    name="history",
    help="a history of many runs: how long commands take, beside MLflow's local store",
    epilog="Needs a package index for MLflow, and 5 GB of disk; contacts nobody else.",
    add_arguments=add_arguments,
    run=run,
)
