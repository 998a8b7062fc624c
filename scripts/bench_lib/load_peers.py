"""What benchmarks of load clients ask for alike: how much load, and who sends it beside ours."""

from __future__ import annotations

import argparse
from pathlib import Path

from .base.command import REPEATS, RUNS


def add_load_arguments(parser: argparse.ArgumentParser, rate: float) -> None:
    """``rate``: requests/s unless another is given."""
    parser.add_argument("--repeats", type=REPEATS, default=3, metavar="N", help="default: 3")
    parser.add_argument(
        "--requests", type=RUNS, default=200, metavar="N", help="of each client (default: 200)"
    )
    parser.add_argument(
        "--rate", type=float, default=rate, metavar="R", help=f"requests/s (default: {rate:g})"
    )


def add_peer_arguments(parser: argparse.ArgumentParser) -> None:
    """The environments of the tools, and where the rounds are written."""
    parser.add_argument("--aiperf", type=Path, metavar="VENV", help="where AIPerf is")
    parser.add_argument("--vllm", type=Path, metavar="VENV", help="where vLLM is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every round, for machines")


def given_peers(arguments: argparse.Namespace, *names: str) -> dict[str, Path]:
    """The environments that were named, in the order of ``names``."""
    given: dict[str, Path | None] = {name: getattr(arguments, name) for name in names}
    return {name: venv.resolve() for name, venv in given.items() if venv is not None}
