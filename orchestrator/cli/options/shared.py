"""Options that most commands have: which machines, and how the output looks."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.core.base.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Command = TypeVar("Command", bound=Callable[..., Any])
Options = TypeVar("Options", bound="DataclassInstance")


class FiniteRange(click.FloatRange):
    """A number within limits. ``nan`` compares as within all of them, and ``inf`` has no end."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return number


def cluster_options(command: Command) -> Command:
    """``--cluster`` and ``--nodes``."""
    return _cluster_options(command, required=True)


def any_cluster_options(command: Command) -> Command:
    """The same where a cluster may be left out."""
    return _cluster_options(command, required=False)


def _cluster_options(command: Command, *, required: bool) -> Command:
    return with_options(
        command,
        click.option(
            "-C",
            "--cluster",
            required=required,
            envvar="ORCHESTRATE_CLUSTER",
            metavar="NAME|FILE",
            help="Inventory of the machines (orchestrate cluster list).",
        ),
        click.option(
            "--nodes",
            metavar="EXPR",
            callback=_not_blank,
            help="Only these nodes: gpu[01-04],!gpu03",
        ),
    )


def _not_blank(_context: click.Context, _option: click.Parameter, nodes: str | None) -> str:
    """Refuse ``--nodes "$UNSET"``: it must not mean every node."""
    if nodes is not None and not nodes.strip():
        raise UsageError(
            "--nodes is empty", id="usage.nodes", remedy="leave it out to use every node"
        )
    return nodes or ""


def color_option(command: Command) -> Command:
    return with_options(
        command,
        click.option(
            "--color",
            type=click.Choice(["auto", "always", "never"]),
            default="auto",
            show_default=True,
            help="auto honours NO_COLOR and TERM=dumb.",
        ),
    )


def json_option(command: Command) -> Command:
    return with_options(
        command, click.option("--json", "as_json", is_flag=True, help="JSON lines on stdout.")
    )


def with_options(command: Command, *decorators: Callable[[Command], Command]) -> Command:
    for decorator in reversed(decorators):
        command = decorator(command)
    return command


def pick_options(kind: type[Options], given: Mapping[str, Any]) -> Options:
    """The options of ``kind`` among all that a command was given."""
    return kind(**{f.name: given[f.name] for f in fields(kind) if f.name in given})


def use_color(choice: str, *, err: bool = False) -> bool:
    """Whether standard output (or error) is written in colour."""
    from orchestrator.view.terminal.terminal import use_color

    return use_color(choice, sys.stderr if err else sys.stdout, os.environ)
