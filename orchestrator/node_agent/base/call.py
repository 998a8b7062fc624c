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
    from typing import Any, Protocol, TypeVar

    class ChannelClosing(Protocol):
        """What is released when its channel ends."""

        def close(self) -> None: ...

    Shared = TypeVar("Shared", bound=ChannelClosing)

    Request = Mapping[str, Any]


def _nothing() -> None:
    pass


class Context:
    """What operations share: the writer, the layout, and what has to end with the channel.

    The values of ``watches``, ``listeners`` and ``trials`` belong to the modules of these names.
    """

    def __init__(self, writer: FrameWriter, layout: NodeLayout) -> None:
        self.writer = writer
        self.layout = layout
        self.watches: dict[str, Any] = {}
        self.listeners: dict[int, Any] = {}
        self.builders: set[int] = set()
        self.trials: dict[str, Any] = {}
        self.afterwards: dict[str, Callable[[], None]] = {}
        self.lock = threading.Lock()
        self._shared: dict[type, ChannelClosing] = {}

    def after(self, id: str) -> None:
        """The answer to ``id`` is on its way: what it announced may begin."""
        self.afterwards.pop(id, _nothing)()
        watch = self.watches.get(id)
        if watch:
            threading.Thread(target=self._run_watch, args=(watch,), daemon=True).start()

    def _run_watch(self, watch: Any) -> None:
        try:
            watch.run()
        except OSError:
            self.close()
            os._exit(0)
        finally:
            self.watches.pop(watch.id, None)

    def shared(self, kind: type[Shared]) -> Shared:
        """The channel's only ``kind()``, made when it is first needed and closed at the end."""
        with self.lock:
            if kind not in self._shared:
                self._shared[kind] = kind()
            found = self._shared[kind]
        assert isinstance(found, kind)
        return found

    def close(self) -> None:
        """Release what is shared; end builders and trials (groups that we started, not reaped)."""
        for part in list(self._shared.values()):
            part.close()
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
