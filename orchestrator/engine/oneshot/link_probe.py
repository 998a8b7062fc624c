"""Which of the nodes can open TCP connections to each other, asked without a run."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack

from orchestrator.adapters.agent_client.connect_agent import OwnedChannel, connect_agent
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.doctor.check_model import Mesh
from orchestrator.core.fabric.connection_matrix import explain_failures
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.core.planning.placing import addresses_of
from orchestrator.engine.network.mesh import Places, try_twice
from orchestrator.engine.node.trial_node import TrialPorts
from orchestrator.engine.oneshot.probe_nodes import Surveyed, SurveyLimits
from orchestrator.parsing.replies.supervisor_records import BadRecord

# Two dials of several seconds each where links are broken, a fraction of a second elsewhere.
DIALS_S = 30.0
# So that the dials of a node with many interfaces end in time.
MOST_ADDRESSES = 4


async def survey_links(
    nodes: Sequence[NodeSpec], answers: Sequence[Surveyed], limits: SurveyLimits
) -> Mesh | None:
    """What is at fault between the nodes that answered; None if there is but one machine.

    Takes ``limits.connect_s`` and ``DIALS_S`` at most; raises nothing.
    """
    facts = {answer.node: answer.facts for answer in answers if answer.facts is not None}
    if len(nodes) == 1 or _same_machine(list(facts.values()), len(nodes)):
        return None
    if len(facts) == 1:
        return Mesh(unasked=dict.fromkeys(facts, "no other node answered"))
    specs = [spec for spec in nodes if spec.name in facts]
    async with AsyncExitStack() as stack:
        opened = await _open_all(specs, limits, stack)
        unasked = {name: why for name, why in opened.items() if isinstance(why, str)}
        channels = {name: c for name, c in opened.items() if not isinstance(c, str)}
        if len(channels) == 1:
            return Mesh(unasked={**dict.fromkeys(channels, "no other node answered"), **unasked})
        places = {name: addresses_of(facts[name])[:MOST_ADDRESSES] for name in channels}
        return await _look(channels, places, unasked)


async def _look(
    channels: Mapping[str, OwnedChannel], places: Places, unasked: Mapping[str, str]
) -> Mesh:
    ports = {name: TrialPorts(channel) for name, channel in channels.items()}
    try:
        async with asyncio.timeout(DIALS_S):
            matrix = await try_twice(ports, places)
    except (OrchestrateError, OSError, TimeoutError, BadRecord) as error:
        why = f"they could not be probed ({str(error) or f'not done within {DIALS_S:g} s'})"
        return Mesh(unasked={**dict.fromkeys(channels, why), **unasked})
    return Mesh(broken=tuple(explain_failures(list(channels), matrix)), unasked=unasked)


async def _open_all(
    specs: Sequence[NodeSpec], limits: SurveyLimits, stack: AsyncExitStack
) -> dict[str, OwnedChannel | str]:
    """A channel to each node's agent, or why there is none."""
    turn = asyncio.Semaphore(limits.width)
    connect = ConnectLimits(connect_timeout_s=limits.connect_s)

    async def one(spec: NodeSpec) -> OwnedChannel | str:
        try:
            async with turn:
                channel = await connect_agent(spec, limits=connect, timeout_s=limits.connect_s)
        except (OrchestrateError, OSError, TimeoutError) as error:
            return f"its agent did not start ({str(error) or 'no answer in time'})"
        stack.push_async_callback(channel.close)
        return channel

    opened = await asyncio.gather(*(one(spec) for spec in specs))
    return dict(zip((spec.name for spec in specs), opened, strict=True))


def _same_machine(facts: Sequence[Facts], nodes: int) -> bool:
    """Whether all nodes answered, and are one machine under several names."""
    hosts = {found.host_id for found in facts}
    return len(facts) == nodes and len(hosts) == 1 and hosts != {""}
