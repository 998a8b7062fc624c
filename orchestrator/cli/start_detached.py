"""``run --detach`` as a process of its own, for commands that go on once the ranks run."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from orchestrator.adapters.store.background_command import own_command, own_environment
from orchestrator.adapters.store.layout import Layout

PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start_detached(
    layout: Layout, words: Sequence[str], variables: Mapping[str, str]
) -> tuple[int, str]:
    """(exit code, run id): 0 once the ranks run or the run queues, else without a run id; progress
    is shown meanwhile.

    ``variables`` are added to the environment, so that no secret stands in a command line. Ctrl-C
    stops the run, as it does with ``run --detach``. Raises ``OSError``.
    """
    process = subprocess.Popen(
        own_command(["run", "--detach", *words]),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**own_environment(layout), **variables},
        text=True,
        start_new_session=True,  # a signal of the terminal arrives once, by way of us
    )
    with _passing_on(process):
        out, _ = process.communicate()
    return process.returncode, "" if process.returncode else out.strip().rpartition("\n")[2]


@contextmanager
def _passing_on(process: subprocess.Popen[str]) -> Iterator[None]:
    before = {
        number: signal.signal(number, lambda got, _: process.send_signal(got))
        for number in PASSED_ON
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
