"""What all nodes have, each asked once: connect, one glance, and away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.adapters.agent_client.oneshot_client import take_glance
from orchestrator.adapters.transport.open_transport import open_transport
from orchestrator.adapters.transport.transport import ChannelClosed, ConnectLimits
from orchestrator.core.base.errors import DeadlineError, OrchestrateError, PreflightError
from orchestrator.core.model.checks import MODULES_THAT_MUST_AGREE
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.inventory import NodeSpec, PythonKind
from orchestrator.engine.support.clock import Clock, SystemClock
from orchestrator.parsing.replies.probe_reply import parse_facts

# Environments that a run would build are not built for a look.
BUILT = frozenset({PythonKind.REQUIREMENTS, PythonKind.WORKLOAD})


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyLimits:
    """``width`` bounds how many nodes are asked at the same time; ``modules``: of which modules
    the ranks' interpreter is asked, beside those that must agree.
    """

    connect_s: float = 20.0
    probe_s: float = 60.0
    width: int = 128
    modules: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """One node's answer, or why there is none."""

    node: str
    seconds: float
    facts: Facts | None = None
    error: OrchestrateError | None = None


async def survey(
    nodes: Sequence[NodeSpec], limits: SurveyLimits, *, always_python: bool
) -> list[Surveyed]:
    """Facts of all nodes, in their order. The ranks' interpreter is asked for its modules where
    there are GPUs, with ``always_python`` everywhere: that takes longer than all the rest.
    """
    turn = asyncio.Semaphore(limits.width)
    clock = SystemClock()

    async def one(spec: NodeSpec) -> Surveyed:
        async with turn:
            return await _survey(spec, limits, clock, always_python)

    return list(await asyncio.gather(*(one(spec) for spec in nodes)))


async def _survey(
    spec: NodeSpec, limits: SurveyLimits, clock: Clock, always_python: bool
) -> Surveyed:
    began = clock.monotonic()
    facts: Facts | None = None
    error: OrchestrateError | None = None
    try:
        facts = await _ask(spec, limits, clock, _request(spec, limits, always_python))
    except OrchestrateError as failed:
        error = failed
    except TimeoutError:
        what = f"no answer within {limits.connect_s + limits.probe_s:g} s"
        error = DeadlineError(what, id="OR-TIME-003", where=spec.name)
    except (ChannelClosed, OSError) as failed:
        what = "the link broke before the answer came"
        error = PreflightError(what, id="OR-PROBE-003", where=spec.name, why=str(failed))
    return Surveyed(node=spec.name, seconds=clock.monotonic() - began, facts=facts, error=error)


async def _ask(
    spec: NodeSpec, limits: SurveyLimits, clock: Clock, request: Mapping[str, object]
) -> Facts:
    async with asyncio.timeout(limits.connect_s + limits.probe_s):
        connect = ConnectLimits(connect_timeout_s=limits.connect_s)
        transport = await open_transport(spec, limits=connect)
        try:
            seen = await take_glance(
                transport, spec, request, clock.wall, timeout_s=limits.connect_s
            )
        finally:
            await transport.close()
    return parse_facts(spec.name, seen.fields, asked=seen.asked, answered=seen.answered)


def _request(spec: NodeSpec, limits: SurveyLimits, always_python: bool) -> dict[str, object]:
    built = spec.python.kind in BUILT
    kind = PythonKind.INTERPRETER if built else spec.python.kind
    return {
        "python": {"kind": kind.value, "value": spec.python.base if built else spec.python.value},
        "python_if": "" if always_python else "gpus",
        "modules": sorted({*MODULES_THAT_MUST_AGREE, *limits.modules}),
    }
