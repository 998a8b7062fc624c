"""What this node has: the answer to ``probe``, in the words of ``orchestrator.core.facts``."""

from __future__ import annotations

import os
import resource
import sys
import threading
import time

from orchestrator.edges.agent.node.gpus import find_gpus
from orchestrator.edges.agent.node.layout import NodeLayout
from orchestrator.edges.agent.node.modules import find_modules
from orchestrator.edges.agent.node.network import find_hcas, find_interfaces, route_address
from orchestrator.edges.agent.node.state import boot_id, host_id
from orchestrator.edges.agent.node.wire import field, strings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

MAX_MODULES = 64


def probe(layout: NodeLayout, request: Mapping[str, Any]) -> dict[str, Any]:
    """``notes`` says what could not be found out and why; ``elapsed_s`` how long all of it took."""
    wall_clock, began = time.time(), time.monotonic()
    interpreter = strings(request, "interpreter", 16, None)
    modules = strings(request, "modules", MAX_MODULES, [])
    towards = field(request, "towards", str, None)
    notes: list[str] = []
    facts = _immediate(layout, towards)
    # Drivers and interpreters take their time; ask both at once.
    _together(
        lambda: facts.update(find_gpus(notes)),
        lambda: facts.update(modules=find_modules(interpreter, modules, notes)),
    )
    elapsed_s = time.monotonic() - began
    return {
        "facts": {**facts, "wall_clock": wall_clock},
        "elapsed_s": elapsed_s,
        "notes": notes,
    }


def _immediate(layout: NodeLayout, towards: str | None) -> dict[str, Any]:
    status = os.statvfs(layout.root)
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    memlock = hard if soft != resource.RLIM_INFINITY else soft  # the supervisor raises soft to hard
    return {
        "hostname": os.uname().nodename,
        "boot_id": boot_id(),
        "host_id": host_id(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_bytes": memory_bytes(),
        "disk_free_bytes": status.f_bavail * status.f_frsize,
        "memlock_bytes": None if memlock == resource.RLIM_INFINITY else memlock,
        "interfaces": find_interfaces(),
        "hcas": find_hcas(),
        "route_address": route_address(towards),
        "agent_python": ".".join(map(str, sys.version_info[:3])),
    }


def memory_bytes(proc: str = "/proc", cgroup: str = "/sys/fs/cgroup") -> int:
    """Physical memory, or the control group's limit if that is lower."""
    total = 0
    try:
        with open(f"{proc}/meminfo") as file:
            for line in file:
                if line.startswith("MemTotal:"):
                    total = int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        return 0
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            with open(f"{cgroup}/{name}") as file:
                total = min(total, int(file.read(64)))
        except (OSError, ValueError):
            continue
    return total


def _together(*tasks: Callable[[], None]) -> None:
    threads = [threading.Thread(target=task) for task in tasks[1:]]
    for thread in threads:
        thread.start()
    tasks[0]()
    for thread in threads:
        thread.join()
