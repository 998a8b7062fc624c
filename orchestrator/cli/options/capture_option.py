"""``--capture``, which every command has that starts a job."""

from __future__ import annotations

import click

from orchestrator.cli.options.shared import Command


def capture_option(command: Command) -> Command:
    """Its values are read by ``parsing.inputs.capture_kinds``."""
    return click.option(
        "--capture",
        "captures",
        multiple=True,
        metavar="KIND[,KIND]...",
        help="Record power, clocks, memory, nvlink, or profile[=SECONDS@AFTER] (docs/captures.md). "
        "Repeatable.",
    )(command)
