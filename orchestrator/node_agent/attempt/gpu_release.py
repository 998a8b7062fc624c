"""Whether the GPUs of a run have been given back: its processes' contexts and their memory.

A context outlives its process for a moment, and a wedged one for long. So what was in use before
the launch is noted, and after the sweep the GPUs are asked until they are as they were then.
"""

from __future__ import annotations

import json
import threading
import time

from orchestrator.node_agent.attempt.supervisor_state import supervisor_records
from orchestrator.node_agent.base.agent_errors import BAD_REQUEST, AgentFault
from orchestrator.node_agent.base.node_layout import AttemptLayout, RunLayout, write_atomically
from orchestrator.node_agent.base.sysfs import parse_int
from orchestrator.node_agent.base.wire import read_field
from orchestrator.node_agent.facts.gpu_query import MIB, find_program, query_smi
from orchestrator.node_agent.process.processes import find_process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

MEMORY = "--query-gpu=index,uuid,memory.used"
CONTEXTS = "--query-compute-apps=gpu_uuid,pid,used_memory"
MAX_GPUS = 64
MAX_INDEX = 1023
BASELINE_S = 5.0
DRAIN_S = 10.0
POLL_S = 0.25
ENOUGH_S = 1.0  # for one question, also when the time for all of them is nearly over
SLACK_BYTES = 256 * MIB
MAX_BASELINE_BYTES = 1024 * 1024


class Usage:
    """``used``: GPU index -> bytes. ``contexts``: GPU index -> pid -> bytes, 0 if not told."""

    def __init__(self, used: dict[int, int], contexts: dict[int, dict[int, int]]) -> None:
        self.used = used
        self.contexts = contexts


def check_gpus(request: Mapping[str, Any]) -> list[int]:
    """``request["gpus"]``: indices on this node."""
    gpus: list[int] = read_field(request, "gpus", list, [])
    fine = all(type(index) is int and 0 <= index <= MAX_INDEX for index in gpus)
    if len(gpus) > MAX_GPUS or not fine:
        raise AgentFault(BAD_REQUEST, "'gpus' is not a list of GPU indices")
    return gpus


def parse_usage(memory: str, contexts: str) -> Usage:
    """From CSV without header and units; memory arrives in MiB, or as ``[N/A]``."""
    used: dict[int, int] = {}
    index_of: dict[str, int] = {}
    for cells in _cells(memory):
        index = parse_int(cells[0])
        if index is not None:
            index_of[cells[1]] = index
            used[index] = _bytes(cells[2])
    found: dict[int, dict[int, int]] = {index: {} for index in used}
    for cells in _cells(contexts):
        pid = parse_int(cells[1])
        if cells[0] in index_of and pid is not None:
            found[index_of[cells[0]]][pid] = _bytes(cells[2])
    return Usage(used, found)


def _cells(text: str) -> list[list[str]]:
    rows = ([cell.strip() for cell in line.split(",")] for line in text.splitlines())
    return [row for row in rows if len(row) == 3]


def _bytes(text: str) -> int:
    return (parse_int(text) or 0) * MIB


def ask_driver(program: str, timeout_s: float) -> Usage | None:
    """What the driver says now; None if it does not."""
    notes: list[str] = []
    deadline = time.monotonic() + timeout_s
    memory = query_smi(program, MEMORY, notes, timeout_s)
    contexts = query_smi(program, CONTEXTS, notes, max(ENOUGH_S, deadline - time.monotonic()))
    return None if notes or not memory else parse_usage(memory, contexts)


def note_baseline(attempt: AttemptLayout, gpus: Sequence[int]) -> None:
    """Note what is in use on ``gpus`` before the ranks begin. In a thread: a launch does not wait
    for a driver that wakes up.
    """
    program = find_program() if gpus else None
    if program:
        arguments = (program, attempt, gpus)
        threading.Thread(target=_write_baseline, args=arguments, daemon=True).start()


def _write_baseline(program: str, attempt: AttemptLayout, gpus: Sequence[int]) -> None:
    usage = ask_driver(program, BASELINE_S)
    if usage is None:
        return
    noted = [
        {"index": index, "used_bytes": usage.used[index], "pids": sorted(usage.contexts[index])}
        for index in gpus
        if index in usage.used
    ]
    try:
        write_atomically(attempt.gpus, json.dumps(noted).encode())
    except OSError:  # a full disk: then the GPUs are expected empty
        return


def read_baseline(attempt: AttemptLayout) -> Usage:
    """Zeros and nobody where nothing was noted."""
    baseline = Usage({}, {})
    try:
        with open(attempt.gpus) as file:
            for gpu in json.loads(file.read(MAX_BASELINE_BYTES)):
                baseline.used[int(gpu["index"])] = int(gpu["used_bytes"])
                baseline.contexts[int(gpu["index"])] = dict.fromkeys(map(int, gpu["pids"]), 0)
    except (OSError, ValueError, KeyError, TypeError):
        return Usage({}, {})
    return baseline


def await_release(
    run: RunLayout, gpus: Sequence[int], killed: Sequence[int], within_s: float
) -> bool | None:
    """Whether ``gpus`` are given back, asked until they are or the time is over. The run's
    processes have ended before, ``killed`` among them.

    None without GPUs to ask about, or without the tool to ask; a driver that does not answer is a
    no, as nothing was verified.
    """
    program = find_program() if gpus else None
    if program is None:
        return None
    attempts = [run.attempt(number) for number in run.attempts()]
    baseline = read_baseline(attempts[-1]) if attempts else Usage({}, {})
    ours = {*killed, *_pids(attempts)}
    deadline = time.monotonic() + within_s
    while True:
        usage = ask_driver(program, max(ENOUGH_S, deadline - time.monotonic()))
        if usage and all(_is_free(index, usage, baseline, ours) for index in gpus):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_S)


def _pids(attempts: Sequence[AttemptLayout]) -> set[int]:
    """Every pid that the supervisors recorded."""
    pids = set()
    for record in (record for attempt in attempts for record in supervisor_records(attempt)):
        pid, killed = record.get("pid"), record.get("pids")
        pids.update([pid] if isinstance(pid, int) else [])
        pids.update(killed if isinstance(killed, list) else [])
    return pids


def _is_free(index: int, usage: Usage, baseline: Usage, ours: set[int]) -> bool:
    """None of ours has a context, and the memory in use is as before, or other people's.

    A pid of ours that lives is another process by now. A context without a process that we see is
    other people's if it was there before us: pids may be those of another namespace.
    """
    if index not in usage.used:
        return False
    before = baseline.contexts.get(index, {})
    foreign = 0
    for pid, size in usage.contexts[index].items():
        if pid in ours and find_process(pid) is None:
            return False
        if pid in before or find_process(pid) is not None:
            foreign += size
    expected = max(baseline.used.get(index, 0), foreign)
    return usage.used[index] <= expected + SLACK_BYTES
