"""Work on nodes that a signal ends as Ctrl-C does: what was started there is ended, too."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from orchestrator.core.base.errors import Interrupted, Terminated

T = TypeVar("T")
# By default these end a process on the spot; ``nohup`` has it ignore the second.
ENDING = (signal.SIGTERM, signal.SIGHUP)


def run_interruptibly(work: Coroutine[Any, Any, T]) -> T:
    """As ``asyncio.run``. Raises ``Interrupted`` once SIGTERM or SIGHUP ended ``work``."""
    return asyncio.run(_watched(work))


async def _watched(work: Coroutine[Any, Any, T]) -> T:
    asked: list[signal.Signals] = []
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)

    def end(number: signal.Signals) -> None:
        asked.append(number)
        task.cancel()

    for number in ENDING:
        # What ignores it, or has a handler of its own, keeps that.
        if signal.getsignal(number) is signal.SIG_DFL:
            with contextlib.suppress(RuntimeError, ValueError):  # not the main thread
                loop.add_signal_handler(number, end, number)
    try:
        return await task
    except asyncio.CancelledError:
        if not asked:
            raise
        ended_by = Terminated if signal.SIGTERM in asked else Interrupted
        raise ended_by(f"interrupted by {asked[0].name}", id="interrupted") from None
