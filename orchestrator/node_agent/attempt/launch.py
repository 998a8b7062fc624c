"""Starting the supervisor of an attempt: at most once, and with nothing secret on disk."""

from __future__ import annotations

import fcntl
import json
import os
import re
import select
import sys
import time
from contextlib import contextmanager

from orchestrator.node_agent.attempt.gpu_release import check_gpus, note_baseline
from orchestrator.node_agent.attempt.locks import LockHeld
from orchestrator.node_agent.attempt.reservations import (
    Reservation,
    Reservations,
    check_locks,
    describe_holder,
)
from orchestrator.node_agent.attempt.supervisor_state import supervisor_state
from orchestrator.node_agent.attempt.workcopy import copy_code
from orchestrator.node_agent.base import activation
from orchestrator.node_agent.base import lease_file as lease
from orchestrator.node_agent.base.agent_errors import ABSENT, BAD_REQUEST, BUSY, LAUNCH, AgentFault
from orchestrator.node_agent.base.login import engine_environment, login_environment
from orchestrator.node_agent.base.node_layout import (
    AGENT,
    NODE_CODE,
    RANK_ENV,
    AttemptLayout,
    NodeLayout,
    RunLayout,
    check_name,
)
from orchestrator.node_agent.base.sysfs import boot_id
from orchestrator.node_agent.base.wire import read_field, read_seconds, read_strings
from orchestrator.node_agent.containers.container_jobs import container_prefix, record_engine
from orchestrator.node_agent.process.rank_shim import GRACE
from orchestrator.node_agent.telemetry.sampling_request import check_captures, prepare_sampler

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

START_S = 30.0
FLIGHT_PIPE = "TORCH_NCCL_DEBUG_INFO_PIPE_FILE"
BEFORE_US_S = 300.0  # a launch of the same attempt that is under way copies code
MAX_PROCESSES = 256
MAX_WORDS = 8192
FIRST_HELD_FD = 10
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")
PLACEHOLDER = re.compile(
    r"\{(snapshot|kit|work|output|report|checkpoints|attempt|scratch"
    r"|agent|agent_python|rank_env|container|user)\}"
)
ENTRY = (
    "import sys;sys.path.insert(0,sys.argv[1]);"
    "from orchestrator.node_agent.attempt.supervisor import main;main()"
)


def launch_attempt(
    reservations: Reservations, layout: NodeLayout, request: Mapping[str, Any]
) -> dict[str, Any]:
    """Start the attempt's supervisor, or answer which one it already has."""
    run = layout.run(request.get("run"), request.get("node"))
    attempt = run.attempt(request.get("attempt"))
    epoch = lease.check_epoch(request)
    lease_s = lease.check_lease(request)
    wanted, holder = check_locks(request), describe_holder(run, request)
    gpus, captures = check_gpus(request), check_captures(request)
    facts = read_field(request, "facts", dict, None)
    spec = _specification(layout, run, attempt, request)
    with lease.claimed_run(run, epoch, BEFORE_US_S):
        known = supervisor_state(attempt)
        if known:
            return {"supervisor": known.identity, "already": True, "alive": known.alive}
        _refuse_if_busy(run)
        with _lent(reservations, wanted, holder) as locks:
            attempt.create()
            if spec["scratch"]:
                attempt.create_scratch()
            note_baseline(attempt, gpus)
            spec["sampler"] = prepare_sampler(attempt, captures, gpus, _first_rank(spec))
            if facts is not None:
                _write_facts(attempt.facts, facts)
            if spec["engine"]:
                record_engine(attempt, spec["engine"])
            keep_usable_pipes(spec["processes"], attempt.root)
            if read_field(request, "own_copy", bool, False):
                copy_code(layout.snapshot(request.get("snapshot")), attempt.work)
            lease.write_lease(attempt, epoch, lease_s)
            spec["lock_records"] = locks.records
            identity = _spawn(spec, locks.descriptors, attempt)
    return {"supervisor": identity, "already": False, "alive": True}


def _write_facts(path: str, facts: dict[str, Any]) -> None:
    """For the ranks to read. It need not survive a power cut: neither do they."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        json.dump(facts, file)


@contextmanager
def _lent(
    reservations: Reservations, wanted: Sequence[tuple[str, str]], holder: dict[str, Any]
) -> Iterator[Reservation]:
    try:
        with reservations.lent(wanted, holder) as locks:
            yield locks
    except LockHeld as occupied:
        raise AgentFault(BUSY, str(occupied)) from occupied


def _first_rank(spec: Mapping[str, Any]) -> int | None:
    ranks = [process["rank"] for process in spec["processes"] if process["rank"] is not None]
    return min(ranks, default=None)


def _refuse_if_busy(run: RunLayout) -> None:
    for number in run.attempts():
        known = supervisor_state(run.attempt(number))
        if known and known.alive:
            raise AgentFault(BUSY, f"attempt {number} of this run is still running here")


def _specification(
    layout: NodeLayout,
    run: RunLayout,
    attempt: AttemptLayout,
    request: Mapping[str, Any],
) -> dict[str, Any]:
    places, processes = fill_placeholders(layout, run, attempt, request)
    default = places["snapshot"] or attempt.output
    grace_s = read_seconds(request, "grace_s", 0.0, 3600.0)
    for process in processes:
        process["env"][GRACE] = f"{grace_s:g}"
    return {
        "run": request["run"],
        "node": request["node"],
        "attempt": request["attempt"],
        "attempt_dir": attempt.root,
        "grace_s": grace_s,
        "cwd": _fill(read_field(request, "cwd", str, None) or default, places),
        "snapshot": request.get("snapshot"),
        "agent": os.path.basename(AGENT),
        "boot_id": boot_id(),
        "environments": _environments(layout, processes),
        "independent": read_field(request, "independent", bool, False),
        "engine": read_field(request, "engine", str, None),
        "scratch": any(attempt.scratch in word for p in processes for word in p["argv"]),
        "processes": processes,
    }


def fill_placeholders(
    layout: NodeLayout,
    run: RunLayout,
    attempt: AttemptLayout,
    request: Mapping[str, Any],
) -> tuple[dict[str, str], list[dict[str, Any]]]:
    """What the placeholders stand for, and the processes with that and the markers filled in."""
    digest = read_field(request, "snapshot", str, None)
    if digest is not None and not os.path.isdir(layout.snapshot(digest)):
        raise AgentFault(ABSENT, f"snapshot {digest[:16]} is not on this node")
    places = {
        "snapshot": layout.snapshot(digest) if digest else "",
        "kit": layout.kit(digest) if digest else "",
        "work": attempt.work,
        "output": attempt.output,
        "report": attempt.report,
        "checkpoints": run.checkpoints,
        "attempt": attempt.root,
        "scratch": attempt.scratch,
        "agent": NODE_CODE,
        "agent_python": sys.executable,
        "rank_env": RANK_ENV,
        "container": container_prefix(attempt),
        "user": f"{os.geteuid()}:{os.getegid()}",
    }
    markers = {
        "ORCHESTRATE_RUN_ID": request["run"],
        "ORCHESTRATE_NODE": request["node"],
        "ORCHESTRATE_ATTEMPT": str(request["attempt"]),
        "ORCHESTRATE_ATTEMPT_DIR": attempt.root,
        "ORCHESTRATE_REPORT_DIR": attempt.report,
        "ORCHESTRATE_OUTPUT_DIR": attempt.output,
        "ORCHESTRATE_EXCHANGE_DIR": attempt.exchange,
        "ORCHESTRATE_CHECKPOINT_DIR": run.checkpoints,
    }
    if read_field(request, "facts", dict, None) is not None:
        markers["ORCHESTRATE_FACTS"] = attempt.facts
    return places, _processes(request, places, markers)


def _environments(layout: NodeLayout, processes: list[dict[str, Any]]) -> list[str]:
    """The digests of built environments that the processes run under: pruning spares them."""
    prefix = layout.environments + os.sep
    words = {word for process in processes for word in process["argv"] if word.startswith(prefix)}
    return sorted({word[len(prefix) :].partition(os.sep)[0] for word in words})


def _processes(
    request: Mapping[str, Any], places: Mapping[str, str], markers: Mapping[str, str]
) -> list[dict[str, Any]]:
    given = read_field(request, "processes", list)
    if not 0 < len(given) <= MAX_PROCESSES or not all(isinstance(p, dict) for p in given):
        raise AgentFault(BAD_REQUEST, f"'processes' must be 1 to {MAX_PROCESSES} objects")
    known = login_environment() if request.get("engine") is None else engine_environment()
    processes = [_process(process, places, {**markers, **known}, markers) for process in given]
    if len({process["label"] for process in processes}) < len(processes):
        raise AgentFault(BAD_REQUEST, "two processes have the same label")
    return processes


def _process(
    given: Mapping[str, Any],
    places: Mapping[str, str],
    known: Mapping[str, str],
    markers: Mapping[str, str],
) -> dict[str, Any]:
    argv = [_fill(word, places) for word in read_strings(given, "argv", MAX_WORDS)]
    if not argv or not argv[0]:
        raise AgentFault(BAD_REQUEST, "'argv' is empty")
    rank = read_field(given, "rank", int, None)
    label = check_name(given.get("label"), "label", LABEL)
    if rank is not None and (rank < 0 or label != f"rank-{rank}"):
        raise AgentFault(BAD_REQUEST, f"rank {rank} must be labelled rank-{rank}")
    env = read_field(given, "env", dict, {})
    for name, value in env.items():
        if not name or "=" in name or not isinstance(value, str) or "\0" in name + value:
            raise AgentFault(BAD_REQUEST, "'env' holds what is not an environment variable")
    filled = {name: _fill(value, places) for name, value in activation.fill_variables(env).items()}
    # Markers come first in the process's environment, and nothing overrides them.
    environment = {**known, **filled, **markers}
    return {"label": label, "rank": rank, "argv": argv, "env": environment}


def keep_usable_pipes(processes: list[dict[str, Any]], root: str) -> None:
    """torch ends a rank that cannot make the pipe below ``root`` that it was told of: where the
    file system has no pipes, ranks are not told.
    """
    told = [p["env"] for p in processes if p["env"].get(FLIGHT_PIPE, "").startswith(root)]
    if not told:
        return
    probe = os.path.join(root, ".pipe")
    try:
        os.mkfifo(probe, 0o600)
        os.unlink(probe)
    except FileExistsError:
        return
    except OSError:
        for environment in told:
            del environment[FLIGHT_PIPE]


def _fill(text: str, places: Mapping[str, str]) -> str:
    return PLACEHOLDER.sub(lambda match: places[match.group(1)], text)


def _spawn(spec: dict[str, Any], held: list[int], attempt: AttemptLayout) -> dict[str, Any]:
    """Start the supervisor, hand it the specification over a pipe, wait until it has begun."""
    spec["held"] = [FIRST_HELD_FD + i for i in range(len(held))]
    spec_out, spec_in = os.pipe()
    answer_out, answer_in = os.pipe()
    try:
        with os.fdopen(spec_in, "wb") as specification:
            try:
                with open(attempt.supervisor_log, "ab", opener=_private) as log:
                    fds = {3: answer_in, 0: spec_out, 1: log.fileno(), 2: log.fileno()}
                    pid = _start_supervisor(spec, {**dict(zip(spec["held"], held)), **fds})
            finally:
                os.close(spec_out)
                os.close(answer_in)
            specification.write(json.dumps(spec).encode())
        os.waitpid(pid, 0)  # it forks and leaves at once
        return _answer(answer_out, attempt)
    finally:
        os.close(answer_out)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _start_supervisor(spec: Mapping[str, Any], sources: Mapping[int, int]) -> int:
    """Its process; ``sources``: what each of its descriptors is a copy of."""
    # High numbers first, so that no source is overwritten before it was copied. They are the lowest
    # ones above: some nodes give a login few descriptors.
    above = max(sources) + 1
    copies: dict[int, int] = {}
    try:
        for target, fd in sources.items():
            copies[target] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above)
        argv = [sys.executable, "-I", "-S", "-c", ENTRY, AGENT, f"{spec['run']}/{spec['node']}"]
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in copies.items()]
        return os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions)
    finally:
        for fd in copies.values():
            os.close(fd)


def _answer(fd: int, attempt: AttemptLayout) -> dict[str, Any]:
    deadline = time.monotonic() + START_S
    data = b""
    while not data.endswith(b"\n"):
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(fd, 4096) if ready else b""
        if not chunk:
            raise AgentFault(LAUNCH, f"the supervisor did not start; see {attempt.supervisor_log}")
        data += chunk
    identity: dict[str, Any] = json.loads(data)
    return identity
