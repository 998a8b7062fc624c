"""Signals to processes of an attempt, for drills: by identity, and to nobody else's processes."""

from __future__ import annotations

import os
import re
import signal

from orchestrator.node_agent.attempt.run_operations import existing_attempt
from orchestrator.node_agent.attempt.supervisor_state import supervisor_records, supervisor_state
from orchestrator.node_agent.base import lease_file as lease
from orchestrator.node_agent.base.agent_errors import ABSENT, BAD_REQUEST, AgentFault, shorten_value
from orchestrator.node_agent.base.node_layout import AttemptLayout
from orchestrator.node_agent.process.processes import belongs_to_attempt, send_signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from orchestrator.node_agent.base.call import Call

ALLOWED = {
    "KILL": signal.SIGKILL,
    "STOP": signal.SIGSTOP,
    "CONT": signal.SIGCONT,
    "TERM": signal.SIGTERM,
}
RANK = re.compile(r"rank-(0|[1-9]\d{0,6})\Z")


def signal_target(call: Call) -> dict[str, Any]:
    """Send ``signal`` to a rank, to the supervisor, or, once this is answered, to this agent."""
    request = call.request
    target, name = request.get("target"), request.get("signal")
    if not isinstance(name, str) or name not in ALLOWED:
        raise AgentFault(BAD_REQUEST, f"not a signal for drills: {shorten_value(name)}")
    rank = RANK.match(target) if isinstance(target, str) else None
    if rank is None and target not in ("supervisor", "agent"):
        raise AgentFault(BAD_REQUEST, f"not a target for signals: {shorten_value(target)}")
    run, attempt = existing_attempt(call.layout, request)
    with lease.claimed_run(run, lease.check_epoch(request)):
        if target == "agent":
            call.context.afterwards[request["id"]] = lambda: os.kill(os.getpid(), ALLOWED[name])
            return {"pid": os.getpid()}
        pid, start_time = _rank(attempt, int(rank.group(1))) if rank else _supervisor(attempt)
        if not send_signal(pid, start_time, ALLOWED[name]):
            raise AgentFault(ABSENT, f"{target} of this attempt does not run any more")
    return {"pid": pid}


def _supervisor(attempt: AttemptLayout) -> tuple[int, int]:
    state = supervisor_state(attempt)
    if state is None or not state.alive:
        raise AgentFault(ABSENT, "this attempt has no supervisor that runs")
    return state.pid, state.start_time


def _rank(attempt: AttemptLayout, rank: int) -> tuple[int, int]:
    """The rank as its supervisor recorded it, if it still belongs to the attempt."""
    state = supervisor_state(attempt)
    identity = _started(attempt, rank) if state else None
    if state is None or identity is None:
        raise AgentFault(ABSENT, f"rank {rank} has not started in this attempt on this node")
    if not belongs_to_attempt(identity[0], attempt.root, state.pid if state.alive else 0):
        raise AgentFault(ABSENT, f"rank {rank} of this attempt does not run any more")
    return identity


def _started(attempt: AttemptLayout, rank: int) -> tuple[int, int] | None:
    """(pid, start time) of the rank's latest start."""
    found = None
    for record in supervisor_records(attempt):
        if record.get("event") == "rank-started" and record.get("rank") == rank:
            found = int(record["pid"]), int(record["start_time"])
    return found
