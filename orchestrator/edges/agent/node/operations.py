"""The operations by name. Each takes (context, request, body); modules load when first needed."""

from __future__ import annotations

import contextlib
import os
import signal
import threading

from orchestrator.edges.agent.node.fault import BUSY, AgentFault
from orchestrator.edges.agent.node.layout import NodeLayout
from orchestrator.edges.agent.node.wire import Body, FrameWriter, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Union

    from orchestrator.edges.agent.node.reach import Listener
    from orchestrator.edges.agent.node.watch import Watch

    Request = Mapping[str, Any]
    Result = Union[dict[str, Any], tuple[dict[str, Any], bytes]]

MAX_MANIFEST_BYTES = 64 * 1024 * 1024
MAX_REQUIREMENTS_BYTES = 1024 * 1024
MAX_WATCHES = 64


class Context:
    """What operations share: the writer, the layout, and what has to end with the channel."""

    def __init__(self, writer: FrameWriter, layout: NodeLayout, agent: str) -> None:
        self.writer = writer
        self.layout = layout
        self.agent = agent
        self.watches: dict[str, Watch] = {}
        self.listeners: dict[int, Listener] = {}
        self.builders: set[int] = set()
        self.lock = threading.Lock()

    def after(self, id: str) -> None:
        """The answer to ``id`` is on its way: a watch may begin."""
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

    def close(self) -> None:
        """End builders (process groups that we started and did not reap)."""
        for pid in list(self.builders):
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)


def _probe(context: Context, request: Request, body: Body) -> Result:
    from orchestrator.edges.agent.node.facts import probe

    return probe(context.layout, request)


def _offer(context: Context, request: Request, body: Body) -> Result:
    from orchestrator.edges.agent.node.snapshot import offer

    manifest = body.read_all(MAX_MANIFEST_BYTES)
    return offer(context.layout, field(request, "digest", str), manifest)


def _push(context: Context, request: Request, body: Body) -> Result:
    from orchestrator.edges.agent.node.snapshot import push

    return push(context.layout, field(request, "digest", str), dict(request), body)


def _environment(context: Context, request: Request, body: Body) -> Result:
    from orchestrator.edges.agent.node.environment import build

    return build(context, request, body.read_all(MAX_REQUIREMENTS_BYTES))


def _listen(context: Context, request: Request, body: Body) -> Result:
    from orchestrator.edges.agent.node.reach import listen

    with context.lock:
        return listen(context.listeners)


def _release(context: Context, request: Request, body: Body) -> Result:
    from orchestrator.edges.agent.node.reach import release

    with context.lock:
        return release(context.listeners, field(request, "port", int))


def _dial(context: Context, request: Request, body: Body) -> Result:
    from orchestrator.edges.agent.node.reach import dial

    return dial(request)


def _launch(context: Context, request: Request, body: Body) -> Result:
    from orchestrator.edges.agent.node.launch import launch

    return launch(context.layout, context.agent, request)


def _watch(context: Context, request: Request, body: Body) -> Result:
    from orchestrator.edges.agent.node.watch import Watch, check_cursors

    run = context.layout.run(request.get("run"), request.get("node"))
    attempt = run.attempt(request.get("attempt"))
    cursors = check_cursors(request.get("cursors", {}))
    rate_limit = field(request, "rate_limit", float, None)
    if len(context.watches) >= MAX_WATCHES:
        raise AgentFault(BUSY, f"there are {MAX_WATCHES} watches on this channel already")
    id = request["id"]
    context.watches[id] = Watch(id, context.writer, attempt, cursors, rate_limit)
    return {"watch": id}


def _unwatch(context: Context, request: Request) -> None:
    watch = context.watches.get(str(request.get("watch")))
    if watch:
        watch.credit.close()
    context.writer.send({"id": request["id"], "ok": True})


def _credit(context: Context, request: Request) -> None:
    watch = context.watches.get(str(request.get("watch")))
    granted = request.get("bytes")
    if watch and type(granted) is int and granted > 0:
        watch.credit.grant(granted)


def _runs(name: str) -> Callable[[Context, Request, Body], Result]:
    def perform(context: Context, request: Request, body: Body) -> Result:
        from orchestrator.edges.agent.node import runs

        result: dict[str, Any] = getattr(runs, name)(context.layout, request)
        return result

    return perform


def _outputs(context: Context, request: Request, body: Body) -> Result:
    from orchestrator.edges.agent.node.outputs import outputs

    return outputs(context.layout, request)


def _fetch(context: Context, request: Request, body: Body) -> Result:
    from orchestrator.edges.agent.node.outputs import fetch

    return fetch(context.layout, request)


OPERATIONS: dict[str, Callable[[Context, Request, Body], Result]] = {
    "probe": _probe,
    "offer": _offer,
    "push": _push,
    "environment": _environment,
    "listen": _listen,
    "release": _release,
    "dial": _dial,
    "launch": _launch,
    "watch": _watch,
    "renew": _runs("renew"),
    "stop": _runs("stop"),
    "sweep": _runs("sweep_run"),
    "runs": _runs("list_runs"),
    "clean": _runs("clean"),
    "prune": _runs("prune"),
    "outputs": _outputs,
    "fetch": _fetch,
}

# Answered by the reading thread itself, in order with everything else that arrives.
INLINE: dict[object, Callable[[Context, Request], None]] = {
    "unwatch": _unwatch,
    "credit": _credit,
}
