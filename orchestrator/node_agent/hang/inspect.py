"""Evidence on ranks that make no progress: everything at once, bounded, within a deadline.

The answer's payload is a row of files: first ``inspection.json``, what is known of every rank,
then what it was made from, such as stacks and flight records.
"""

from __future__ import annotations

import json
import os
import threading
import time
from functools import partial

from orchestrator.node_agent.attempt.supervisor_state import SupervisorState, supervisor_state
from orchestrator.node_agent.base.agent_errors import ABSENT, AgentFault
from orchestrator.node_agent.base.node_layout import AttemptLayout, NodeLayout
from orchestrator.node_agent.base.sysfs import parse_int
from orchestrator.node_agent.facts import gpu_query
from orchestrator.node_agent.facts.network import find_interfaces
from orchestrator.node_agent.hang import flight_recorder as flight
from orchestrator.node_agent.hang import ras, stacks
from orchestrator.node_agent.hang.proc_status import STOPPED, process_environment, process_vitals
from orchestrator.node_agent.process.processes import find_process, list_descendants

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

DEADLINE_S = 12.0
DRIVER_S = 8.0
MAX_RANKS = 128
MAX_AT_ONCE = 32
MAX_EVENTS_BYTES = 8 * 1024 * 1024
MAX_FILE_BYTES = 8 * 1024 * 1024
MAX_FILES_BYTES = 32 * 1024 * 1024
MAX_LINES = 8
MAX_LINE_CHARACTERS = 300
TAIL_BYTES = 8 * 1024
USE = "--query-gpu=index,uuid,utilization.gpu,memory.used,memory.total"


class Inspector:
    """One look at one attempt. Threads add files as they find them; late ones come to nothing."""

    def __init__(self, attempt: AttemptLayout) -> None:
        self._attempt = attempt
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore(MAX_AT_ONCE)
        self._deadline = time.monotonic() + DEADLINE_S
        self._facts: dict[object, Any] = {}
        self._files: dict[str, bytes] = {}
        self._notes: list[str] = []
        self._late: set[object] = set()
        self._closed = False

    def perform(self) -> tuple[dict[str, Any], bytes]:
        """Look at everything. ``DEADLINE_S`` at most, whatever hangs."""
        began = time.monotonic()
        supervisor = supervisor_state(self._attempt)
        ranks = living_ranks(self._attempt)
        family = _family(supervisor)
        tasks: dict[object, Callable[[], Any]] = {"gpus": self._gpus}
        first: dict[object, Callable[[], Any]] = {
            ("environment", rank): partial(process_environment, pid) for rank, pid in ranks.items()
        }
        # Before anything is asked of a rank: torch logs that it writes its flight record.
        first.update({("log", rank): partial(last_lines, self._attempt, rank) for rank in ranks})
        found = self._gather(first)
        environments = {rank: found.get(("environment", rank), {}) for rank in ranks}
        for rank, pid in ranks.items():
            environment = environments[rank]
            present = family is None or pid in family
            gone = {"pid": pid, "state": ""}
            tasks["vitals", rank] = partial(process_vitals, pid) if present else gone.copy
            tasks["stack", rank] = partial(self._stack, rank, pid, environment)
            tasks["flight", rank] = partial(self._flight, rank, pid, environment)
        if ranks and (address := _ras_address(environments.values())):
            tasks["ras"] = partial(self._ras, address)
        found.update(self._gather(tasks))
        document = {
            "ranks": [self._rank(rank, pid, found) for rank, pid in ranks.items()],
            "supervisor": _describe(supervisor),
            "gpus": found.get("gpus", []),
            "notes": self._notes[:64],
            "elapsed_s": round(time.monotonic() - began, 3),
        }
        self._add_places(document, found)
        return self._answer(document)

    # ---- doing several things at once -----------------------------------------------------------

    def _gather(self, tasks: Mapping[object, Callable[[], Any]]) -> dict[object, Any]:
        """What each task returned in time. A read of /proc may block for as long as a disk does."""
        threads = [
            threading.Thread(target=self._perform, args=pair, name=_name(pair[0]), daemon=True)
            for pair in tasks.items()
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, self._deadline - time.monotonic()))
        with self._lock:
            late = [t.name for t in threads if t.is_alive()]
            self._late.update(name for name, t in zip(tasks, threads) if t.is_alive())
            if late:
                self._notes.append(f"not in time: {', '.join(late[:8])}")
            return {name: self._facts.pop(name) for name in tasks if name in self._facts}

    def _perform(self, name: object, task: Callable[[], Any]) -> None:
        with self._slots:
            if time.monotonic() >= self._deadline:
                return
            try:
                fact = task()
            except Exception as error:  # noqa: BLE001 - one kind of evidence must not cost the rest
                self._note(f"{_name(name)}: {type(error).__name__}: {error}")
                return
        with self._lock:
            self._facts[name] = fact

    def _note(self, text: str) -> None:
        with self._lock:
            self._notes.append("".join(c if c.isprintable() else " " for c in text)[:500])

    def _keep(self, name: str, data: bytes) -> None:
        with self._lock:
            size = len(data) + sum(map(len, self._files.values()))
            if self._closed or not data:
                return
            if len(data) > MAX_FILE_BYTES or size > MAX_FILES_BYTES:
                self._notes.append(f"{name}: left out, {len(data)} bytes are too many")
            else:
                self._files[name] = data

    # ---- kinds of evidence ----------------------------------------------------------------------

    def _stack(self, rank: int, pid: int, environment: Mapping[str, str]) -> list[str]:
        program = stacks.find_program(pid, environment)
        target = _python(pid)
        if program is None or target is None:
            return []
        text, trouble = stacks.dump_stacks(program, target)
        if trouble:
            self._note(f"rank {rank}: {trouble}")
        self._keep(f"rank-{rank}.stacks.txt", text.encode())
        return stacks.main_thread(text, target)

    def _flight(self, rank: int, pid: int, environment: Mapping[str, str]) -> list[dict[str, Any]]:
        found = find_process(pid)
        stopped = found is None or found.state in STOPPED
        data = flight.request_record(rank, environment, wait_s=0.0 if stopped else flight.WAIT_S)
        if data is None:
            return []
        self._keep(f"flight_record_rank_{rank}", data)
        try:
            record = flight.load_record(data)
        except ValueError as error:
            self._note(f"rank {rank}: {error}")
            return []
        self._keep(f"rank-{rank}.flight.json", flight.as_json(record) or b"")
        return flight.group_progress(record)

    def _ras(self, address: str) -> str:
        text = ras.ask_ras(address)
        self._keep("nccl-ras.txt", text.encode())
        return text

    def _gpus(self) -> list[dict[str, Any]]:
        program, notes = gpu_query.find_program(), list[str]()
        if program is None:
            return []
        listed = gpu_query.query_smi(program, USE, notes, DRIVER_S)
        used = (
            gpu_query.query_smi(program, gpu_query.COMPUTE_USERS, notes, DRIVER_S) if listed else ""
        )
        for note in notes:
            self._note(note)
        return parse_use(listed, gpu_query.parse_users(used))

    # ---- putting it together --------------------------------------------------------------------

    def _rank(self, rank: int, pid: int, found: Mapping[object, Any]) -> dict[str, Any]:
        # Where not even /proc answers, the process is stuck in the kernel.
        unknown = {"pid": pid, "state": "D" if ("vitals", rank) in self._late else "?"}
        lines, quiet_s = found.get(("log", rank), ([], None))
        return {
            "rank": rank,
            **found.get(("vitals", rank), unknown),
            "quiet_s": quiet_s,
            "lines": lines,
            "stack": found.get(("stack", rank), []),
            "collectives": found.get(("flight", rank), []),
        }

    def _add_places(self, document: dict[str, Any], found: Mapping[object, Any]) -> None:
        """Which GPU is whose, and what NCCL itself says of ranks without a flight record."""
        owners: dict[int, dict[str, Any]] = {}
        for rank in document["ranks"]:
            pids = [rank["pid"], *(process["pid"] for process in rank.get("below", ()))]
            owners.update(dict.fromkeys(pids, rank))
        for gpu in document["gpus"]:
            for owner in gpu["users"]:
                if owner in owners:
                    owners[owner]["gpu"] = gpu["index"]
        text = found.get("ras", "")
        if text:
            addresses = {a for i in find_interfaces() for a in i["addresses"]}
            for pid, place in ras.parse_places(text, owners, addresses).items():
                owners[pid]["collectives"] = owners[pid]["collectives"] or [place]

    def _answer(self, document: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        with self._lock:
            self._closed = True
            files = {"inspection.json": json.dumps(document).encode(), **self._files}
        listed = [{"name": name, "bytes": len(data)} for name, data in files.items()]
        return {"files": listed}, b"".join(files.values())


def inspect_ranks(layout: NodeLayout, request: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
    """Look at every rank of an attempt that has not ended. Changes nothing."""
    attempt = layout.run(request.get("run"), request.get("node")).attempt(request.get("attempt"))
    if not os.path.isdir(attempt.root):
        raise AgentFault(ABSENT, "this node knows nothing of that attempt")
    return Inspector(attempt).perform()


def _family(supervisor: SupervisorState | None) -> set[int] | None:
    """The pids below the supervisor; None if it does not live. A number may be used again."""
    if supervisor is None or not supervisor.alive:
        return None
    return {process.pid for process in list_descendants(supervisor.pid)}


def _describe(supervisor: SupervisorState | None) -> dict[str, object] | None:
    found = find_process(supervisor.pid) if supervisor and supervisor.alive else None
    return found.describe() if found else None


def living_ranks(attempt: AttemptLayout) -> dict[int, int]:
    """rank -> pid of those that began and of which no end was seen, lowest first."""
    ranks: dict[int, int] = {}
    with open(attempt.events, "rb") as file:
        data = file.read(MAX_EVENTS_BYTES)
        for line in data[: data.rfind(b"\n") + 1].splitlines():
            record = json.loads(line)
            if record["event"] == "rank-started":
                ranks[int(record["rank"])] = int(record["pid"])
            elif record["event"] == "rank-exited":
                ranks.pop(int(record["rank"]), None)
    return dict(sorted(ranks.items())[:MAX_RANKS])


def last_lines(attempt: AttemptLayout, rank: int) -> tuple[list[str], float | None]:
    """The end of what the rank wrote last, and seconds since it wrote or reported anything."""
    logs = [attempt.log(f"rank-{rank}.{end}") for end in ("out", "err")]
    paths = [*logs, os.path.join(attempt.report, f"rank-{rank}.jsonl")]
    written = {path: at for path in paths if (at := _written_at(path)) is not None}
    if not written:
        return [], None
    lines: list[str] = []
    newest = max((path for path in written if path in logs), key=written.__getitem__, default=None)
    if newest is not None:
        with open(newest, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            text = file.read(TAIL_BYTES).decode(errors="replace")
        clean = ("".join(c for c in line if c.isprintable()) for line in text.splitlines())
        lines = [line[:MAX_LINE_CHARACTERS] for line in clean if line.strip()][-MAX_LINES:]
    return lines, round(max(0.0, time.time() - max(written.values())), 3)


def parse_use(text: str, users: Mapping[str, set[int]]) -> list[dict[str, Any]]:
    """GPUs from CSV without header and units: ``busy`` in percent, memory in MiB."""
    found = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        index = parse_int(cells[0])
        if len(cells) == 5 and index is not None:
            busy, used, total = map(parse_int, cells[2:])
            found.append(
                {
                    "index": index,
                    "uuid": cells[1],
                    "busy": busy,
                    "memory_used_mib": used,
                    "memory_mib": total,
                    "users": sorted(users.get(cells[1], ())),
                }
            )
    return found


def _written_at(path: str) -> float | None:
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_mtime if status.st_size else None


def _python(pid: int) -> int | None:
    """The rank's process if it is a Python, else the first Python below it."""
    found = find_process(pid)
    below = list_descendants(pid) if found and not found.comm.startswith("python") else []
    every = [process for process in (found, *below) if process]
    return next((process.pid for process in every if process.comm.startswith("python")), None)


def _ras_address(environments: Any) -> str:
    """Where NCCL answers: as a rank was told, or where it does by default if there are GPUs."""
    for environment in environments:
        if environment.get("NCCL_RAS_ADDR"):
            return str(environment["NCCL_RAS_ADDR"])
    return ras.ADDRESS if gpu_query.find_program() else ""


def _name(task: object) -> str:
    return " of rank ".join(map(str, task)) if isinstance(task, tuple) else str(task)
