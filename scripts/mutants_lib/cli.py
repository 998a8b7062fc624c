"""The command line of `scripts/mutants`."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from .catalog import MUTANTS
from .mutant import Mutant
from .verdicts import Fate, Verdict, try_all

ALL_CAUGHT, NOT_ALL, INTERRUPTED = 0, 1, 130
MAX_JOBS = 16


def main(argv: Sequence[str] | None = None) -> int:
    """Try what was asked for; the exit code."""
    asked = _parse(argv)
    mutants = [mutant for mutant in MUTANTS if not asked.only or mutant.name in asked.only]
    if asked.list:
        print(*(_listed(mutant) for mutant in mutants), sep="\n\n")
        return ALL_CAUGHT
    began = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        verdicts = _tried(mutants, asked.jobs)
    except KeyboardInterrupt:
        print("mutants: stopped; nothing is left", file=sys.stderr)
        return INTERRUPTED
    for verdict in verdicts:
        if verdict.output:
            print(f"\n== {verdict.mutant.name}: {verdict.fate}", verdict.output, sep="\n")
    caught = sum(verdict.fate is Fate.CAUGHT for verdict in verdicts)
    print(f"{caught} of {len(verdicts)} mutants caught, {time.monotonic() - began:.0f} s")
    return ALL_CAUGHT if caught == len(verdicts) else NOT_ALL


def _tried(mutants: Sequence[Mutant], jobs: int) -> list[Verdict]:
    """All verdicts; each is shown as soon as it and those before it are known."""
    verdicts: list[Verdict] = []
    with (
        tempfile.TemporaryDirectory(prefix="mutants-", ignore_cleanup_errors=True) as scratch,
        contextlib.closing(try_all(mutants, Path(scratch), jobs)) as trying,
    ):
        for verdict in trying:
            if not verdicts:
                print(_row("MUTANT", "SECONDS", "CAUGHT BY", "PROMISE"))
            verdicts.append(verdict)
            print(_shown(verdict), flush=True)
    return verdicts


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mutants",
        description="Put each bug of a list into a copy of this checkout and run the tests that "
        "must notice. Exit 1 if one of them is not caught.",
    )
    names = [mutant.name for mutant in MUTANTS]
    parser.add_argument("--list", action="store_true", help="show the mutants, run nothing")
    parser.add_argument(
        "--only", action="append", choices=names, metavar="NAME", help="this mutant; repeatable"
    )
    jobs = min(MAX_JOBS, os.cpu_count() or 1)
    parser.add_argument(
        "--jobs", type=_jobs, default=jobs, metavar="N", help=f"at a time (here: {jobs})"
    )
    return parser.parse_args(argv)


def _jobs(text: str) -> int:
    number = int(text)
    if not 1 <= number <= MAX_JOBS:
        raise argparse.ArgumentTypeError(f"expected 1 to {MAX_JOBS}")
    return number


def _listed(mutant: Mutant) -> str:
    lines = [f"{mutant.name}: {mutant.promise}", f"  {mutant.file}"]
    lines += [f"  - {line}" for line in mutant.old.splitlines()]
    lines += [f"  + {line}" for line in mutant.new.splitlines()]
    return "\n".join([*lines, *(f"  {test}" for test in mutant.tests)])


def _shown(verdict: Verdict) -> str:
    by = verdict.by.removeprefix("tests/")
    by = by if verdict.fate is Fate.CAUGHT else f"{verdict.fate}: {by}"
    return _row(verdict.mutant.name, f"{verdict.seconds:.1f}", by, verdict.mutant.promise)


def _row(name: str, seconds: str, by: str, promise: str) -> str:
    return f"{name:<38} {seconds:>7}  {by:<96}  {promise}"


if __name__ == "__main__":
    sys.exit(main())
