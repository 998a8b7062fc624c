"""How often diagnose names the right cause, on logs whose cause is known."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench_lib.base.command import MET, MISSED, Command, reported
from bench_lib.diagnose import Verdict, as_json, diagnose_markdown, met, verdicts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the cases are written."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="every case, for machines")


def run(arguments: argparse.Namespace) -> int:
    """Judge each corpus of logs."""
    cases: list[Verdict] = []

    def report() -> None:
        if arguments.json:
            arguments.json.write_text(as_json(cases) + "\n")
        print(diagnose_markdown(cases), end="", flush=True)

    with reported(cases, report):
        cases.extend(verdicts())  # which adds them one by one: a stop keeps those before it
    return MET if met(cases) else MISSED


COMMAND = Command(
    name="diagnose",
    help="how often diagnose names the right cause, on logs whose cause is known",
    epilog="Contacts nobody, and needs neither root nor GPUs.",
    add_arguments=add_arguments,
    run=run,
)
