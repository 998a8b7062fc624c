"""The image of one node's ranks: present or pulled, with its digest and what its Python has."""

from __future__ import annotations

from orchestrator.adapters.agent_client.channel import AgentError
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.containers.asking import image_question
from orchestrator.core.containers.containing import container_interpreter
from orchestrator.core.containers.engine_errors import explain_error
from orchestrator.core.model.container import ContainerSpec
from orchestrator.core.run.events import Prepared
from orchestrator.engine.node.link import NodeLink
from orchestrator.engine.node.progress_notes import progress_noted
from orchestrator.engine.support.context import RunContext
from orchestrator.parsing.replies.image_reply import parse_image

# How the agent says that an engine cannot do it, in the engine's own words.
NO_CONTAINER = "OR-AGENT-CONTAINER"


async def prepare_image(
    link: NodeLink, spec: ContainerSpec, modules: list[str], context: RunContext
) -> Prepared:
    """What the ranks will run in. Raises as ``link`` does, ``PreflightError`` and ``BadRecord``."""
    fields = image_question(link.spec, modules)
    try:
        async with progress_noted(link, context, "image", f"pulling {spec.image}"):
            timeout_s = context.request.budgets.prepare_s
            reply = await link.request("image", fields, timeout_s=timeout_s)
    except AgentError as error:
        if error.id != NO_CONTAINER:
            raise
        found = explain_error(spec, error.what)
        raise PreflightError(
            found.message, id=found.id, where=link.node, remedy=found.remedy
        ) from error
    image, versions = parse_image(reply.fields)
    return Prepared(
        node=link.node,
        interpreter=container_interpreter(link.spec),
        modules=versions,
        image=image,
    )
