"""The command line of `scripts/bench`: one command a benchmark, each in `commands/`."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

from virtual_hosts_lib.processes import VirtualHostsError

from .command import FAILED
from .commands import (
    containers,
    control_plane,
    detection,
    diagnose,
    finetune,
    first_run,
    history,
    load_client,
    model,
    page,
    partition,
    promises,
    scale,
    scrape,
    sigterm,
    steps,
)
from .errors import BenchError, Stopped
from .rounds import say

COMMANDS = (
    control_plane.COMMAND,
    partition.COMMAND,
    finetune.COMMAND,
    diagnose.COMMAND,
    detection.COMMAND,
    history.COMMAND,
    promises.COMMAND,
    containers.COMMAND,
    scale.COMMAND,
    scrape.COMMAND,
    sigterm.COMMAND,
    steps.COMMAND,
    first_run.COMMAND,
    load_client.COMMAND,
    model.COMMAND,
    page.COMMAND,
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
    for command in COMMANDS:
        added = names.add_parser(command.name, help=command.help, epilog=command.epilog + EPILOG)
        command.add_arguments(added)
        added.set_defaults(run=command.run)
    arguments = parser.parse_args(argv)
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
