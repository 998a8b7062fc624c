"""The containers of an attempt that outlive what started them, until the engine has none of them.

They are found by their names, which are those of the attempt alone, whatever became of the
processes: an engine removes a container also when its processes are gone, and frees its layer.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress

from orchestrator.node_agent.base.node_layout import AttemptLayout, write_atomically
from orchestrator.node_agent.base.schedulers import job_record
from orchestrator.node_agent.containers.container_tools import EngineError, ask, find_program
from orchestrator.node_agent.process.cgroups import name_of

HOLDER = "containers"  # as node_agent/base/schedulers.py has it
RELEASE_S = 20.0
POLL_S = 0.1
# How each engine is made to KILL and forget a container. Others have none that outlives a command.
REMOVE = {
    "podman": ("rm", "--force", "--ignore", "--time=0"),
    "docker": ("rm", "--force"),
}


def container_prefix(attempt: AttemptLayout) -> str:
    """How the names of an attempt's containers begin: no other's do."""
    return name_of(attempt)


def record_engine(attempt: AttemptLayout, engine: str) -> None:
    """Write down who is to be asked for containers of ``attempt``, before there are any."""
    if engine in REMOVE:
        write_atomically(job_record(attempt, HOLDER), json.dumps({"engine": engine}).encode())


def forget_engine(attempt: AttemptLayout) -> None:
    """There are no containers of ``attempt`` any more."""
    with suppress(OSError):
        os.unlink(job_record(attempt, HOLDER))


def release_job(attempt: AttemptLayout) -> list[dict[str, object]]:
    """Remove the attempt's containers; what is still there, as survivors are told."""
    record = job_record(attempt, HOLDER)
    try:
        with open(record) as file:
            engine = str(json.loads(file.read(4096))["engine"])
    except (OSError, ValueError, KeyError, TypeError):
        return []
    if engine not in REMOVE:  # not what we wrote
        return []
    try:
        left = _remove(engine, container_prefix(attempt))
    except EngineError as error:
        return [{"pid": "?", "comm": f"{engine}: {error}", "state": "?"}]
    if not left:
        forget_engine(attempt)
    return [{"pid": name, "comm": f"container of {engine}", "state": "?"} for name in left]


def _remove(engine: str, prefix: str) -> list[str]:
    """What is still there when the time is up. Raises :class:`EngineError`."""
    program = find_program(engine)
    deadline = time.monotonic() + RELEASE_S
    while True:
        left = _find(program, prefix)
        if not left or time.monotonic() >= deadline:
            return left
        with suppress(EngineError):  # it may end at this very moment; the next look tells
            ask([program, *REMOVE[engine], *left])
        time.sleep(POLL_S)


def _find(program: str, prefix: str) -> list[str]:
    listed = ask([program, "ps", "--all", f"--filter=name={prefix}", "--format={{.Names}}"])
    return [name for name in listed.split() if name.startswith(prefix)]
