"""``--capture``, which every command has that starts a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def capture_option(command: Command) -> Command:
    """Its values are read by ``parsing.inputs.captures``."""
    return click.option(
        "--capture",
        "captures",
        multiple=True,
        metavar="KIND[,KIND]...",
        help="Record power, clocks, memory, nvlink, or profile[=SECONDS@AFTER] (docs/captures.md). "
        "Repeatable.",
    )(command)
