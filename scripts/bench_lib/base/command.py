"""What each benchmark of the command line is: a name, arguments, and a function that runs it."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BenchError, Stopped
from .report import table
from .rounds import say

MET, FAILED, MISSED = 0, 1, 5
"""Exit codes: every target met; something not measured; a target missed or repeated too rarely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One benchmark; `add_arguments` fills its parser, `run` returns an exit code."""

    name: str
    help: str
    epilog: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def bounded(low: int, high: int) -> Callable[[str], int]:
    """An argument type: a whole number from `low` to `high`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"expected {low} to {high}")
        return number

    return parse


REPEATS = bounded(1, 1000)
RUNS = bounded(100, 10_000_000)


def write_json(path: Path | None, machine: Mapping[str, str], **measured: object) -> None:
    """Everything measured, for machines; nothing where no file was asked for."""
    if path is None:
        return
    report: dict[str, Any] = {"schema_version": 1, "machine": dict(machine), **measured}
    path.write_text(json.dumps(report, indent=1, default=str) + "\n")


def print_report(machine: Mapping[str, str], text: str) -> None:
    """What was measured, below what it was measured on."""
    print(table(("what", "value"), list(machine.items())) + "\n")
    print(text, end="", flush=True)


@contextlib.contextmanager
def reported(finished: Sized, report: Callable[[], None]) -> Iterator[None]:
    """Reports what the block put into `finished`, also if the rest was stopped or failed."""
    try:
        yield
    except (BenchError, Stopped):
        if finished:
            say("ended early; this is what was measured until then")
            report()
        raise
    report()
