"""The image of one node's ranks: present or pulled, with its digest and what its Python has."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.adapters.agent_client.channel import AgentError, Reply
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.containers.asking import image_question
from orchestrator.core.containers.containing import container_interpreter
from orchestrator.core.containers.engine_errors import explain_error
from orchestrator.core.model.container import ContainerImage, ContainerSpec
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
    async with progress_noted(link, context, "image", f"pulling {spec.image}"):
        reply = await _ask(link, spec, fields, context.request.budgets.prepare_s)
    image, versions = parse_image(reply.fields)
    return Prepared(
        node=link.node,
        interpreter=container_interpreter(link.spec),
        modules=versions,
        image=image,
    )


async def look_at_image(
    link: NodeLink, modules: list[str], timeout_s: float
) -> tuple[ContainerImage | None, Mapping[str, str] | None]:
    """What is there of it, and the modules of its Python; None: it is not there, and is not
    brought. Raises as :func:`prepare_image`.
    """
    spec = link.spec.container
    assert spec is not None, "asked of nodes that run containers"
    fields = {**image_question(link.spec, modules), "look": True}
    reply = await _ask(link, spec, fields, timeout_s)
    return (None, None) if reply.fields.get("absent") is True else parse_image(reply.fields)


async def _ask(
    link: NodeLink, spec: ContainerSpec, fields: Mapping[str, object], timeout_s: float
) -> Reply:
    try:
        return await link.request("image", fields, timeout_s=timeout_s)
    except AgentError as error:
        if error.id != NO_CONTAINER:
            raise
        found = explain_error(spec, error.what)
        raise PreflightError(
            found.message, id=found.id, where=link.node, remedy=found.remedy
        ) from error
