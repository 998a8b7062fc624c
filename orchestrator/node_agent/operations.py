"""The operations by name. Their modules load when they are first needed: start-up stays short."""

from __future__ import annotations

import importlib

from orchestrator.node_agent.base.agent_errors import BUSY, AgentFault
from orchestrator.node_agent.base.call import Call, Context
from orchestrator.node_agent.base.schedulers import QUESTIONS
from orchestrator.node_agent.base.wire import read_field, read_strings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Union

    Request = Mapping[str, Any]
    Result = Union[dict[str, Any], tuple[dict[str, Any], bytes]]

MAX_MANIFEST_BYTES = 64 * 1024 * 1024
MAX_CHANGE_BYTES = 1024 * 1024
MAX_REQUIREMENTS_BYTES = 1024 * 1024
MAX_BASES = 64
MAX_WATCHES = 64


def _on_layout(module: str, name: str) -> Callable[[Call], Result]:
    """The function ``name(layout, request)`` of a module of the agent."""

    def perform(call: Call) -> Result:
        loaded = importlib.import_module(f"orchestrator.node_agent.{module}")
        result: Result = getattr(loaded, name)(call.layout, call.request)
        return result

    return perform


def _offer(call: Call) -> Result:
    from orchestrator.node_agent.code.snapshot import offer_snapshot

    digest = read_field(call.request, "digest", str)
    base = read_field(call.request, "base", str, "")
    if base:
        from orchestrator.node_agent.code.snapshot_change import offer_change

        return offer_change(call.layout, digest, base, call.body.read_all(MAX_CHANGE_BYTES))
    return offer_snapshot(
        call.layout,
        digest,
        call.body.read_all(MAX_MANIFEST_BYTES),
        bases=read_strings(call.request, "bases", MAX_BASES, []),
        check=read_field(call.request, "check", bool, False),
        copied=read_field(call.request, "copied", bool, False),
        at_once=read_field(call.request, "at_once", bool, False),
    )


def _push(call: Call) -> Result:
    from orchestrator.node_agent.code.snapshot import push_part

    digest = read_field(call.request, "digest", str)
    return push_part(call.layout, digest, dict(call.request), call.body)


def _interpreter(call: Call) -> Result:
    from orchestrator.node_agent.facts.interpreter import resolve_interpreter

    return resolve_interpreter(call.request)


def _environment(call: Call) -> Result:
    from orchestrator.node_agent.code.environment import build_environment

    return build_environment(call.context, call.request, call.body.read_all(MAX_REQUIREMENTS_BYTES))


def _image(call: Call) -> Result:
    from orchestrator.node_agent.containers.image import prepare_image

    return prepare_image(call.context, call.request)


def _feed(call: Call) -> Result:
    from orchestrator.node_agent.attempt.feed import store_feed

    return store_feed(call.layout, call.request, call.body)


def _listen(call: Call) -> Result:
    from orchestrator.node_agent.facts.tcp_probe import open_listener

    with call.context.lock:
        return open_listener(call.context.listeners)


def _release(call: Call) -> Result:
    from orchestrator.node_agent.facts.tcp_probe import close_listener

    with call.context.lock:
        return close_listener(call.context.listeners, read_field(call.request, "port", int))


def _dial(call: Call) -> Result:
    from orchestrator.node_agent.facts.tcp_probe import dial_targets

    return dial_targets(call.request)


def _trial(call: Call) -> Result:
    from orchestrator.node_agent.attempt.trial_process import run_trial

    return run_trial(call.context, call.layout, call.request)


def _end_trial(call: Call) -> Result:
    from orchestrator.node_agent.attempt.trial_process import end_trial

    return end_trial(call.context, call.request)


def _with_reservations(module: str, name: str) -> Callable[[Call], Result]:
    """The function ``name(reservations, layout, request)`` of a module of the agent."""

    def perform(call: Call) -> Result:
        from orchestrator.node_agent.attempt.reservations import Reservations

        loaded = importlib.import_module(f"orchestrator.node_agent.{module}")
        reservations = call.context.shared(Reservations)
        result: Result = getattr(loaded, name)(reservations, call.layout, call.request)
        return result

    return perform


def _watch(call: Call) -> Result:
    from orchestrator.node_agent.attempt.watch import WatchStream, check_cursors

    request, watches = call.request, call.context.watches
    run = call.layout.run(request.get("run"), request.get("node"))
    attempt = run.attempt(request.get("attempt"))
    cursors = check_cursors(request.get("cursors", {}))
    rate_limit = read_field(request, "rate_limit", float, None)
    if len(watches) >= MAX_WATCHES:
        raise AgentFault(BUSY, f"there are {MAX_WATCHES} watches on this channel already")
    id = request["id"]
    watches[id] = WatchStream(id, call.context.writer, attempt, cursors, rate_limit)
    return {"watch": id}


def _signal(call: Call) -> Result:
    from orchestrator.node_agent.attempt.drill_signals import signal_target

    return signal_target(call)


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


OPERATIONS: dict[str, Callable[[Call], Result]] = {
    "probe": _on_layout("facts.gather", "probe_node"),
    "offer": _offer,
    "push": _push,
    "interpreter": _interpreter,
    "environment": _environment,
    "image": _image,
    **{name: _on_layout(*answer) for name, answer in QUESTIONS.items()},
    "listen": _listen,
    "release": _release,
    "dial": _dial,
    "trial": _trial,
    "end_trial": _end_trial,
    "reserve": _with_reservations("attempt.reservations", "reserve_locks"),
    "unreserve": _with_reservations("attempt.reservations", "release_locks"),
    "launch": _with_reservations("attempt.launch", "launch_attempt"),
    "watch": _watch,
    "feed": _feed,
    "renew": _on_layout("attempt.run_operations", "renew_lease"),
    "stop": _on_layout("attempt.run_operations", "stop_attempt"),
    "sweep": _with_reservations("attempt.run_operations", "sweep_run"),
    "signal": _signal,
    "inspect": _on_layout("hang.inspect", "inspect_ranks"),
    "kernel": _on_layout("facts.kernel", "read_kernel_log"),
    "runs": _on_layout("attempt.run_operations", "list_runs"),
    "clean": _on_layout("attempt.run_operations", "remove_run"),
    "prune": _on_layout("attempt.cache_pruning", "prune_caches"),
    "outputs": _on_layout("attempt.outputs", "list_outputs"),
    "fetch": _on_layout("attempt.outputs", "read_output"),
}

# Their answers are not remembered: they may be long, and a repeat finds the same or newer facts.
READS = frozenset(
    (
        *("probe", "offer", "interpreter", *QUESTIONS, "dial", "trial", "inspect", "kernel"),
        *("runs", "outputs", "fetch"),
    )
)


def _ping(context: Context, request: Request) -> None:
    """That it came is all that it says."""


# Answered by the reading thread itself, in order with everything else that arrives.
INLINE: dict[object, Callable[[Context, Request], None]] = {
    "unwatch": _unwatch,
    "credit": _credit,
    "ping": _ping,
}
