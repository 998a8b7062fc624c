"""Options of the commands that show the progress of a run."""

from __future__ import annotations

from dataclasses import dataclass

import click

from orchestrator.cli.options.shared import Command, color_option, json_option, with_options


def view_options(command: Command) -> Command:
    """How progress is shown."""
    return with_options(
        command,
        click.option(
            "-f/-F",
            "--follow/--no-follow",
            default=None,
            help="Show the ranks' output as it comes; the default for a script of your own.",
        ),
        click.option("-q", "--quiet", is_flag=True, help="Only problems and the result."),
        click.option("-v", "--verbose", is_flag=True, help="Every event."),
        color_option,
        json_option,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewOptions:
    """The values of ``view_options``."""

    follow: bool | None
    quiet: bool
    verbose: bool
    color: str
    as_json: bool

    @property
    def verbosity(self) -> int:
        return -1 if self.quiet else int(self.verbose)
