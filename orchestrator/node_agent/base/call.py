"""What an operation gets: its request, and what all operations of one channel share."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

from orchestrator.node_agent.base.node_layout import NodeLayout
from orchestrator.node_agent.base.wire import Body, FrameWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from orchestrator.node_agent.facts.tcp_probe import Listener
    from orchestrator.node_agent.attempt.reservations import Reservations
    from orchestrator.node_agent.attempt.trial_process import Trial
    from orchestrator.node_agent.attempt.watch import Watch

    Request = Mapping[str, Any]


def _nothing() -> None:
    pass


class Context:
    """What operations share: the writer, the layout, and what has to end with the channel."""

    def __init__(self, writer: FrameWriter, layout: NodeLayout) -> None:
        self.writer = writer
        self.layout = layout
        self.watches: dict[str, Watch] = {}
        self.listeners: dict[int, Listener] = {}
        self.builders: set[int] = set()
        self.trials: dict[str, Trial] = {}
        self.afterwards: dict[str, Callable[[], None]] = {}
        self.lock = threading.Lock()
        self._reservations: Reservations | None = None

    def after(self, id: str) -> None:
        """The answer to ``id`` is on its way: what it announced may begin."""
        self.afterwards.pop(id, _nothing)()
        watch = self.watches.get(id)
        if watch:
            threading.Thread(target=self._run_watch, args=(watch,), daemon=True).start()

    def _run_watch(self, watch: Watch) -> None:
        try:
            watch.run()
        except OSError:
            self.close()
            os._exit(0)
        finally:
            self.watches.pop(watch.id, None)

    @property
    def reservations(self) -> Reservations:
        """Made when it is first needed: most channels reserve nothing."""
        with self.lock:
            if self._reservations is None:
                from orchestrator.node_agent.attempt.reservations import Reservations

                self._reservations = Reservations()
            return self._reservations

    def close(self) -> None:
        """Let go of reservations; end builders and trials (groups that we started, not reaped)."""
        if self._reservations is not None:
            self._reservations.close()
        for pid in list(self.builders):
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)


class Call:
    """One request as an operation gets it."""

    def __init__(self, context: Context, request: Request, body: Body) -> None:
        self.context = context
        self.layout = context.layout
        self.request = request
        self.body = body
