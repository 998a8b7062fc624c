"""A click group whose commands are imported only when one of them is invoked."""

from __future__ import annotations

import importlib
import select
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TextIO

import click
from click.shell_completion import CompletionItem

from orchestrator.core.base.suggest import did_you_mean

_COMMANDS = "orchestrator.cli.commands"
_OWN_OPTIONS = frozenset({"-h", "--help", "--version"})


@dataclass(frozen=True, slots=True)
class Verb:
    """A command to come: its module in ``cli/commands``, and the line that help shows for it.

    ``attribute``: what the command is called in its module, where that is not the verb's name.
    """

    name: str
    module: str
    section: str
    summary: str
    attribute: str = ""


class ReaderGone(Exception):
    """Nobody reads stdout any more."""


class LazyGroup(click.Group):
    """Knows its commands by a table. Options before any verb belong to the default verb."""

    def __init__(self, *args: Any, verbs: Iterable[Verb] = (), default: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._verbs = {verb.name: verb for verb in verbs}
        self._default = default

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self._verbs)

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        cmd_name: str,
    ) -> click.Command | None:
        verb = self._verbs.get(cmd_name)
        if verb is None:
            return None
        module = importlib.import_module(f"{_COMMANDS}.{verb.module}")
        command = getattr(module, verb.attribute or verb.name)
        assert isinstance(command, click.Command)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self.with_verb(args))

    def with_verb(self, words: list[str]) -> list[str]:
        """``words`` with the default verb in front when they begin with one of its options."""
        if words and words[0].startswith("-") and words[0] not in _OWN_OPTIONS:
            return [self._default, *words]
        return words

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self._verbs:
            hint = did_you_mean(args[0], self._verbs)
            raise click.UsageError(f"no such command: {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises :class:`ReaderGone`, since click would make a broken pipe exit
        code 1, which means here that the job failed.
        """
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            if _is_broken(sys.stdout):
                raise ReaderGone from error
            raise RuntimeError("a pipe broke, and it was not stdout") from error

    def format_commands(
        self,
        ctx: click.Context,  # noqa: ARG002 - click's signature
        formatter: click.HelpFormatter,
    ) -> None:
        sections = dict.fromkeys(verb.section for verb in self._verbs.values())
        for section in sections:
            with formatter.section(section):
                formatter.write_dl(
                    [(v.name, v.summary) for v in self._verbs.values() if v.section == section]
                )

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in self._verbs if name.startswith(incomplete)]
        items = [CompletionItem(name, help=self._verbs[name].summary) for name in names]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]


def _is_broken(stream: TextIO) -> bool:
    """Whether the other end of ``stream`` is closed."""
    poll = select.poll()
    poll.register(stream.fileno(), 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))
