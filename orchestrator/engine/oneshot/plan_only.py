"""A plan from what the nodes really are: probe them, decide, leave nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.base.errors import OrchestrateError, PreflightError
from orchestrator.core.model.checks import NodeFinding
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.inventory import NodeSpec, PythonKind
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.request import RunRequest
from orchestrator.core.planning.planning import (
    Refusal,
    declared_environment,
    declared_interpreter,
    make_plan,
)
from orchestrator.engine.node.container_image import look_at_image
from orchestrator.engine.node.link import NodeLink
from orchestrator.engine.node.python_environment import (
    ask_scheduler,
    asked_modules,
    requirements_of,
)
from orchestrator.engine.oneshot.node_link import node_link
from orchestrator.engine.support.clock import Clock, SystemClock
from orchestrator.parsing.replies.probe_reply import parse_facts
from orchestrator.parsing.replies.supervisor_records import BadRecord, parse_interpreter

# Environments that a run would build are not built for a look at the plan.
_BUILT = frozenset({PythonKind.REQUIREMENTS, PythonKind.WORKLOAD})


async def preview(
    request: RunRequest, limits: ConnectLimits | None = None
) -> tuple[Plan, Mapping[str, Facts]]:
    """The plan that a run would make now, and the facts of the nodes that answered. Raises
    ``PreflightError`` if it would refuse.
    """
    clock = SystemClock()
    workers = request.cluster.workers
    answers = await asyncio.gather(*(_look(spec, request, limits, clock) for spec in workers))
    findings = {
        spec.name: answer
        for spec, answer in zip(workers, answers, strict=True)
        if isinstance(answer, NodeFinding)
    }
    failed = {
        spec.name: answer
        for spec, answer in zip(workers, answers, strict=True)
        if isinstance(answer, str)
    }
    decided = make_plan(request, findings, failed)
    if isinstance(decided, Refusal):
        problem = decided.problem
        raise PreflightError(problem.message, id=problem.id, remedy=problem.remedy)
    return decided, {name: finding.facts for name, finding in findings.items()}


async def _look(
    spec: NodeSpec, request: RunRequest, limits: ConnectLimits | None, clock: Clock
) -> NodeFinding | str:
    """What is found, or why nothing is."""
    try:
        async with node_link(spec, request.budgets, limits) as link:
            await link.open(request.budgets.connect_s)
            facts = await _probe(link, request, clock)
            finding = await _finding(link, request, facts)
            return replace(finding, scheduled=await ask_scheduler(link, request))
    except (OrchestrateError, OSError, TimeoutError, BadRecord) as error:
        return error.what if isinstance(error, OrchestrateError) else str(error) or "no answer"


async def _probe(link: NodeLink, request: RunRequest, clock: Clock) -> Facts:
    asked = clock.wall()
    reply = await link.request("probe", timeout_s=request.budgets.probe_s)
    return parse_facts(link.spec.name, reply.fields, asked=asked, answered=clock.wall())


async def _finding(link: NodeLink, request: RunRequest, facts: Facts) -> NodeFinding:
    python = link.spec.python
    if link.spec.container is not None:
        return await _contained_finding(link, request, facts)
    if requirements_of(link.spec, request.job.workload) is not None:
        return NodeFinding(
            facts=facts,
            interpreter=declared_interpreter(link.spec),
            modules=None,
            environment=declared_environment(link.spec),
        )
    plain = {"kind": "interpreter", "value": python.base}
    declared = {"kind": python.kind.value, "value": python.value}
    asked = {
        "interpreter": plain if python.kind in _BUILT else declared,
        "modules": asked_modules(request),
    }
    reply = await link.request("interpreter", asked, timeout_s=request.budgets.probe_s)
    found = parse_interpreter(reply.fields)
    return NodeFinding(
        facts=facts,
        interpreter=found.path,
        modules=found.modules,
        environment=found.environment,
    )


async def _contained_finding(link: NodeLink, request: RunRequest, facts: Facts) -> NodeFinding:
    """What the image has, if it is there: a look at the plan pulls none."""
    image, versions = await look_at_image(link, asked_modules(request), request.budgets.prepare_s)
    return NodeFinding(
        facts=facts,
        interpreter=declared_interpreter(link.spec),
        modules=versions,
        environment=declared_environment(link.spec),
        image=image,
    )
