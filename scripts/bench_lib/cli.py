"""The command line of `scripts/bench`: one command a benchmark, each in `commands/`."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import FrameType

from virtual_hosts_lib.processes import VirtualHostsError

from .base.command import FAILED, Command
from .base.errors import BenchError, Stopped
from .base.rounds import say

MODULES = (
    "control_plane",
    "partition",
    "finetune",
    "lora",
    "diagnose",
    "detection",
    "history",
    "promises",
    "containers",
    "scale",
    "scrape",
    "sigterm",
    "steps",
    "first_run",
    "load_client",
    "load_mirror",
    "load_stamps",
    "model",
    "page",
)
EPILOG = """
Reports go to standard output as Markdown, progress to standard error.  Exits with 0 when every
target is met, 5 when one is missed or was repeated too rarely, 1 when something could not be
measured.  When it is stopped, what was measured until then is reported all the same.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; the exit code."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, epilog=EPILOG)
    names = parser.add_subparsers(dest="command", required=True)
    words = sys.argv[1:] if argv is None else argv
    for command in _commands(words):
        added = names.add_parser(command.name, help=command.help, epilog=command.epilog + EPILOG)
        command.add_arguments(added)
        added.set_defaults(run=command.run)
    arguments = parser.parse_args(words)
    try:
        with _signals_stop():
            code: int = arguments.run(arguments)
            return code
    except (BenchError, VirtualHostsError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return FAILED
    except Stopped as stopped:
        say("stopped; everything is cleaned up")
        return stopped.exit_code


def _commands(words: Sequence[str]) -> list[Command]:
    """The one that is asked for, alone: each needs packages of its own, and a machine with GPUs may
    have none of the product's. All of them where none is named.
    """
    asked = [name for name in MODULES if words and name.replace("_", "-") == words[0]]
    found = [import_module(f".commands.{name}", __package__) for name in asked or MODULES]
    commands: list[Command] = [module.COMMAND for module in found]
    return commands


@contextlib.contextmanager
def _signals_stop() -> Iterator[None]:
    """Each of these unwinds the stack once, so that everything is cleaned up; then they wait."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, _: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
