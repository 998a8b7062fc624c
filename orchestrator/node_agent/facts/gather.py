"""What this node has: the answer to ``probe``, in the words of ``orchestrator.core.model.facts``.

A probe of a node without GPUs costs little more than the start of the interpreter: what only
drivers, interpreters and threads need is imported where it is used.
"""

from __future__ import annotations

import sys
import time

from orchestrator.node_agent.base.sysfs import boot_id, host_id
from orchestrator.node_agent.facts.gpu_facts import find_gpus
from orchestrator.node_agent.facts.host_facts import find_host
from orchestrator.node_agent.facts.host_health import find_clocks, find_processes, uptime_s
from orchestrator.node_agent.facts.network import find_interfaces, route_address
from orchestrator.node_agent.facts.rdma import find_hcas

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from orchestrator.node_agent.base.node_layout import NodeLayout


def probe_node(layout: NodeLayout, request: Mapping[str, Any]) -> dict[str, Any]:
    """The operation; see :func:`gather_facts`."""
    return gather_facts(layout.root, request)


def gather_facts(root: str, request: Mapping[str, Any]) -> dict[str, Any]:
    """``notes`` says what could not be found out and why; ``elapsed_s`` how long all of it took.

    ``request`` may name the ranks' ``python`` (kind and value) and the ``modules`` to look for
    there; with ``python_if`` ``gpus`` only where there are GPUs. ``towards`` is an address.
    """
    wall_clock, began = time.time(), time.monotonic()
    notes: list[str] = []
    towards = request.get("towards")
    facts: dict[str, Any] = {
        **find_host(root),
        **find_clocks(),
        "boot_id": boot_id(),
        "host_id": host_id(),
        "uptime_s": uptime_s(),
        "interfaces": find_interfaces(),
        "hcas": find_hcas(),
        "route_address": route_address(towards if isinstance(towards, str) else None),
        "agent_python": ".".join(map(str, sys.version_info[:3])),
    }
    facts.update(find_gpus(notes, facts["hcas"]))
    tasks = [lambda: facts.update(find_processes())]
    if facts["gpus"]:
        tasks.append(lambda: facts.update(xids=_xids(notes)))
    if "python" in request and (facts["gpus"] or request.get("python_if") != "gpus"):
        tasks.append(lambda: facts.update(_interpreter(request, notes)))
    _together(tasks)
    elapsed_s = time.monotonic() - began
    return {"facts": {**facts, "wall_clock": wall_clock}, "elapsed_s": elapsed_s, "notes": notes}


def _xids(notes: list[str]) -> list[dict[str, Any]] | None:
    from orchestrator.node_agent.facts.xids import find_xids

    return find_xids(notes)


def _interpreter(request: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    from orchestrator.node_agent.base.agent_errors import AgentFault
    from orchestrator.node_agent.facts.interpreter import resolve_interpreter

    try:
        asked = {"interpreter": request["python"], "modules": request.get("modules", [])}
        found = resolve_interpreter(asked)
    except AgentFault as fault:
        notes.append(f"the ranks' interpreter: {fault.message}")
        return {}
    return {name: found[name] for name in ("interpreter", "modules")}


def _together(tasks: list[Callable[[], None]]) -> None:
    """Both may take their time: logs and interpreters are asked at once."""
    if len(tasks) == 1:
        tasks[0]()
        return
    import threading

    threads = [threading.Thread(target=task) for task in tasks[1:]]
    for thread in threads:
        thread.start()
    tasks[0]()
    for thread in threads:
        thread.join()
