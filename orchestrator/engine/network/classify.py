"""Why an attempt failed: its links, its logs, and another look at the network between its nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.diagnosis.diagnosis_model import Advice, Confidence, Diagnosis
from orchestrator.core.run.connectivity import Classified, Fault
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.failure_cause import describe_links
from orchestrator.engine.network.mesh import broken_links
from orchestrator.engine.node.trial_node import TrialPorts
from orchestrator.engine.support.context import RunContext

# What a run would meet again on any other rung. The rest may be a word for a broken network.
OWN_FAULTS = frozenset({Advice.GIVE_UP, Advice.EXCLUDE_NODE})


async def classify_failure(
    nodes: Mapping[str, TrialPorts], state: RunState, context: RunContext
) -> Classified:
    """Whether another way for the ranks to communicate would have helped.

    What a log says clearly counts before what the network looks like now: a rank that ran out of
    memory did so on a broken network, too. A node that is gone is not a broken network.
    """
    if state.links is not None:
        links = state.links.links
        return _fabric_at_fault(state, f"{describe_links(links)} any more", links)
    found = await asyncio.to_thread(_diagnose_logs, state, context)
    if found is not None and found.confidence is not Confidence.POSSIBLE:
        if found.advice is Advice.LOWER_RUNG:
            return _fabric_at_fault(state, found.cause)
        if found.advice in OWN_FAULTS:
            return _other_cause(state, found.cause)
    if any(node.lost is not None for _, node in state.planned()):
        return _other_cause(state, "a node was lost")
    try:
        links = await broken_links(nodes, state)
    except (OrchestrateError, OSError, TimeoutError) as error:
        return _other_cause(state, f"the network between the nodes could not be probed: {error}")
    if links:
        return _fabric_at_fault(state, f"{describe_links(links)} any more", links)
    return _other_cause(state, "every node reaches every other one")


def _diagnose_logs(state: RunState, context: RunContext) -> Diagnosis | None:
    # Its rules are hundreds of patterns, which a run that succeeds does not need.
    from orchestrator.engine.support.diagnose_run import diagnose_soon

    try:
        return diagnose_soon(context.folder, state)
    except OSError:
        return None


def _fabric_at_fault(
    state: RunState, reason: str, links: tuple[tuple[str, str], ...] = ()
) -> Classified:
    return Classified(attempt=state.attempt, fault=Fault.FABRIC, reason=reason, links=links)


def _other_cause(state: RunState, reason: str) -> Classified:
    return Classified(attempt=state.attempt, fault=Fault.OTHER, reason=reason)
