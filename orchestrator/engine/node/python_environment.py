"""The Python environment of one node's ranks: built from requirements, or the declared one."""

from __future__ import annotations

import asyncio
import hashlib
import re
from pathlib import Path

from orchestrator.core import launchers
from orchestrator.core.model.checks import NCCL_WHEELS
from orchestrator.core.model.inventory import NodeSpec, PythonKind
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.scheduled_node import ScheduledNode
from orchestrator.core.model.workload import Workload
from orchestrator.core.run.events import Prepared
from orchestrator.engine.node.container_image import prepare_image
from orchestrator.engine.node.link import NodeLink
from orchestrator.engine.node.progress_notes import progress_noted
from orchestrator.engine.support.context import RunContext
from orchestrator.parsing.replies.supervisor_records import parse_interpreter, parse_scheduled_node


async def prepare(link: NodeLink, request: RunRequest, context: RunContext) -> Prepared:
    """Which interpreter the ranks get, and what it can import. Raises as ``link`` does, and
    ``BadRecord``.
    """
    container = link.spec.container
    if container is not None:
        return await prepare_image(link, container, asked_modules(request), context)
    interpreter = await _interpreter(link, request, context)
    reply = await link.request(
        "interpreter",
        {"interpreter": interpreter, "modules": asked_modules(request)},
        timeout_s=request.budgets.probe_s,
    )
    found = parse_interpreter(reply.fields)
    return Prepared(
        node=link.node,
        interpreter=found.path,
        modules=found.modules,
        environment=found.environment,
        scheduled=await ask_scheduler(link, request),
    )


async def ask_scheduler(link: NodeLink, request: RunRequest) -> ScheduledNode | None:
    """How the scheduler knows the node, if one is to start the ranks. Raises where it does not."""
    scheduler = launchers.find_scheduler(request.launcher)
    if scheduler is None:
        return None
    reply = await link.request(scheduler.question, timeout_s=request.budgets.probe_s)
    return parse_scheduled_node(reply.fields)


def asked_modules(request: RunRequest) -> list[str]:
    """What interpreters are asked for: a launcher is chosen by whether torch is there, whatever the
    workload requires, may need a module itself, and nodes must agree on NCCL.
    """
    needed = launchers.needed_modules(request.launcher)
    return sorted({*request.job.workload.modules, *needed, "torch", *NCCL_WHEELS})


def requirements_of(spec: NodeSpec, workload: Workload) -> Path | None:
    """The coordinator's requirements file that the node's environment is built from, if any."""
    if spec.python.kind is PythonKind.REQUIREMENTS:
        return Path(spec.python.value)
    if spec.python.kind is PythonKind.WORKLOAD and workload.requirements:
        return Path(workload.folder) / workload.requirements
    return None


async def _interpreter(link: NodeLink, request: RunRequest, context: RunContext) -> dict[str, str]:
    """What the agent should resolve: a kind and a value."""
    python = link.spec.python
    source = requirements_of(link.spec, request.job.workload)
    if source is not None:
        return {"kind": "interpreter", "value": await _build(link, source, request, context)}
    if python.kind in (PythonKind.REQUIREMENTS, PythonKind.WORKLOAD):
        return {"kind": "interpreter", "value": python.base}
    return {"kind": python.kind.value, "value": python.value}


async def _build(
    link: NodeLink, requirements: Path, request: RunRequest, context: RunContext
) -> str:
    """The interpreter of the environment made from ``requirements``, built unless cached."""
    text = await asyncio.to_thread(requirements.read_bytes)
    known = launchers.known_launcher(request.launcher)
    if known is not None and known.requirement:
        text = add_requirement(text, known.requirement)
    base = link.spec.python.base
    fields = {
        "digest": hashlib.sha256(base.encode() + b"\0" + text).hexdigest(),
        "base": base,
        "modules": asked_modules(request),
    }
    began = context.clock.monotonic()
    async with progress_noted(link, context, "environment", "building the Python environment"):
        reply = await link.request(
            "environment", fields, timeout_s=request.budgets.prepare_s, payload=text
        )
    if reply.fields.get("built"):
        spent = context.clock.monotonic() - began
        context.note(f"{link.node}: Python environment built in {spent:.0f} s")
    return str(reply.fields.get("interpreter"))


def add_requirement(requirements: bytes, wanted: str) -> bytes:
    """The same, and what the launcher needs (``NAME==VERSION``), unless they name it already."""
    names = re.findall(rb"^\s*([A-Za-z0-9._-]+)", requirements, re.MULTILINE)
    if wanted.partition("==")[0].encode() in map(bytes.lower, names):
        return requirements
    return requirements.rstrip(b"\n") + b"\n" + wanted.encode() + b"\n"
