"""Operations on runs that exist: keep alive, stop, sweep, list, remove."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time

from orchestrator.node_agent.attempt.gpu_release import DRAIN_S, await_release, check_gpus
from orchestrator.node_agent.attempt.supervisor_state import (
    SupervisorState,
    concluded_record,
    supervisor_state,
)
from orchestrator.node_agent.base import lease_file as lease
from orchestrator.node_agent.base.agent_errors import ABSENT, BUSY, AgentFault
from orchestrator.node_agent.base.node_layout import (
    AttemptLayout,
    NodeLayout,
    RunLayout,
    lock_file,
    write_atomically,
)
from orchestrator.node_agent.base.schedulers import release_jobs
from orchestrator.node_agent.base.wire import read_field, read_seconds
from orchestrator.node_agent.process.cgroups import ControlGroup
from orchestrator.node_agent.process.processes import (
    FoundProcess,
    SweepResult,
    living_processes,
    marked_processes,
    send_signal,
    sweep_processes,
    unique_processes,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from orchestrator.node_agent.attempt.reservations import Reservations

    Request = Mapping[str, Any]

SWEEP_S = 10.0
SUPERVISOR_END_S = 15.0
POLL_S = 0.02
MAX_RUNS = 2000


def existing_attempt(layout: NodeLayout, request: Request) -> tuple[RunLayout, AttemptLayout]:
    """The attempt that ``request`` names. Raises ABSENT if it never was."""
    run = layout.run(request.get("run"), request.get("node"))
    attempt = run.attempt(request.get("attempt"))
    if not os.path.isdir(attempt.root):
        raise AgentFault(ABSENT, "this node knows nothing of that attempt")
    return run, attempt


def _status(attempt: AttemptLayout, state: SupervisorState | None) -> str:
    if state is None:
        return "none"
    if state.alive:
        return "alive"
    return "concluded" if concluded_record(attempt) else "lost"


def renew_lease(layout: NodeLayout, request: Request) -> dict[str, Any]:
    """Extend the lease from now, and fence off older epochs."""
    run, attempt = existing_attempt(layout, request)
    epoch = lease.check_epoch(request)
    lease_s = lease.check_lease(request)
    with lease.claimed_run(run, epoch):
        lease.write_lease(attempt, epoch, lease_s)
    return {"supervisor": _status(attempt, supervisor_state(attempt))}


def stop_attempt(layout: NodeLayout, request: Request) -> dict[str, Any]:
    """Ask the supervisor to stop within ``grace_s``; the answer does not wait for it.

    With ``epoch``, a newer one keeps it out, and older ones are fenced off.
    """
    run, attempt = existing_attempt(layout, request)
    grace_s = read_seconds(request, "grace_s", 0.0, 3600.0)
    with _fenced(run, request):
        _ask_to_stop(attempt, grace_s)
    return {"supervisor": _status(attempt, supervisor_state(attempt))}


def _ask_to_stop(attempt: AttemptLayout, grace_s: float) -> None:
    """By its file or, where nothing can be written, by TERM: then the launch's grace applies."""
    try:
        write_atomically(attempt.stop, json.dumps({"grace_s": grace_s}).encode())
    except OSError:
        state = supervisor_state(attempt)
        if not state or not send_signal(state.pid, state.start_time, signal.SIGTERM):
            raise


def sweep_run(reservations: Reservations, layout: NodeLayout, request: Request) -> dict[str, Any]:
    """End what is left of the run on this node, its supervisor included, and verify.

    With ``epoch``, launches of older epochs are fenced off first, and one under way is waited for;
    what this channel reserved for the run is given up. ``gpu_drained`` tells whether ``gpus`` are
    given back; None if there is nobody to ask, or nothing to ask about.
    """
    run = layout.run(request.get("run"), request.get("node"))
    gpus = check_gpus(request)
    with _fenced(run, request):
        if request.get("epoch") is not None:
            reservations.release(run.root)
    unfinished = _end_supervisors(run)
    swept = _sweep(run)
    for number in run.attempts():
        run.attempt(number).remove_scratch()
    survivors = [process.describe() for process in swept.survivors] + unfinished
    for number in run.attempts():
        survivors += release_jobs(run.attempt(number))
    gpu_drained = await_release(run, gpus, swept.killed, 0.0 if survivors else DRAIN_S)
    return {
        "scans": swept.scans,
        "killed": swept.killed,
        "survivors": survivors,
        "clean": not survivors,
        "gpu_drained": gpu_drained and not survivors,
    }


@contextlib.contextmanager
def _fenced(run: RunLayout, request: Request) -> Iterator[None]:
    """Inside, no launch is under way and no older epoch may begin one; without epoch, nothing."""
    if request.get("epoch") is None:
        yield
        return
    with lease.claimed_run(run, lease.check_epoch(request)):
        yield


def _sweep(run: RunLayout) -> SweepResult:
    recorded = (ControlGroup.recorded(run.attempt(number)) for number in run.attempts())
    groups = [group for group in recorded if group]

    def find() -> list[FoundProcess]:
        return unique_processes(
            marked_processes(run.root),
            living_processes(pid for group in groups for pid in group.pids()),
        )

    def kill_all() -> None:
        for group in groups:
            group.kill()

    swept = sweep_processes(find, SWEEP_S, kill_all)
    for group in groups:
        group.remove()
    return swept


def _end_supervisors(run: RunLayout) -> list[dict[str, object]]:
    """Let living supervisors conclude at once; KILL one that does not. Returns who is left."""
    attempts = [run.attempt(number) for number in run.attempts()]
    states = [(attempt, supervisor_state(attempt)) for attempt in attempts]
    living = [(attempt, state) for attempt, state in states if state and state.alive]
    for attempt, _ in living:
        _ask_to_stop(attempt, 0.0)
    if not _wait_for([state for _, state in living], SUPERVISOR_END_S):
        for _, state in living:
            send_signal(state.pid, state.start_time, signal.SIGKILL)
        _wait_for([state for _, state in living], 2.0)
    left = [state.pid for _, state in living if state.alive]
    return [{"pid": pid, "comm": "supervisor", "state": "?"} for pid in left]


def _wait_for(states: list[SupervisorState], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while any(state.alive for state in states):
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)
    return True


def list_runs(layout: NodeLayout, request: Request) -> dict[str, Any]:
    """The runs that have a directory here, at most ``MAX_RUNS``; only ``run`` if it is given."""
    wanted = read_field(request, "run", str, None)
    known = [pair for pair in layout.known_runs() if wanted in (None, pair[0])]
    return {
        "runs": [_describe(layout, run, node) for run, node in known[:MAX_RUNS]],
        "left_off": max(0, len(known) - MAX_RUNS),
    }


def _describe(layout: NodeLayout, run: str, node: str) -> dict[str, Any]:
    place = layout.run(run, node)
    attempts = []
    for number in place.attempts():
        attempt = place.attempt(number)
        status = _status(attempt, supervisor_state(attempt))
        attempts.append({"attempt": number, "supervisor": status})
    return {"run": run, "node": node, "attempts": attempts}


def remove_run(layout: NodeLayout, request: Request) -> dict[str, Any]:
    """Remove the run's directory. Raises BUSY while a supervisor lives, and FOREIGN."""
    run = layout.run(request.get("run"), request.get("node"))
    if not os.path.isdir(run.root):
        return {"removed": False}
    fd = lock_file(run.lock)
    try:
        lease.refuse_foreign(run, read_field(request, "token", str, ""))
        for number in run.attempts():
            state = supervisor_state(run.attempt(number))
            if state and state.alive:
                raise AgentFault(BUSY, f"attempt {number} of this run is still running here")
        layout.discard(run.root)
        try:
            os.rmdir(os.path.dirname(run.root))
        except OSError:  # another inventory node of this machine has its share in there
            pass
    finally:
        os.close(fd)
    return {"removed": True}
