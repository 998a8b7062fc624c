"""A look at the ranks of a node that makes no progress: asked for, validated, kept in a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from orchestrator.adapters.agent_client.channel import ChannelLost
from orchestrator.adapters.store.atomic_files import make_private_dir, write_atomic
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.run.evidence import Inspection
from orchestrator.engine.node.link import NodeGone, NodeLink
from orchestrator.parsing.replies.inspection import parse_inspection
from orchestrator.parsing.replies.supervisor_records import BadRecord

# The node itself gives up after 12 s; links that break meanwhile may come back within the rest.
LOOK_S = 20.0


async def look_at(
    link: NodeLink, attempt: Mapping[str, object], folder: Path, note: Callable[[str], None]
) -> Inspection:
    """What the node tells within ``LOOK_S``; its files go into ``folder``. That it tells nothing
    is an answer, too: nothing is raised.
    """
    try:
        async with asyncio.timeout(LOOK_S):
            reply = await link.request("inspect", attempt, timeout_s=LOOK_S)
        found = parse_inspection(reply.fields.get("files"), reply.payload)
    except (ChannelLost, NodeGone):
        return Inspection(reachable=False)
    except TimeoutError:
        if link.broken:
            return Inspection(reachable=False)
        return Inspection(problem=f"no answer within {LOOK_S:g} s")
    except BadRecord as error:
        return Inspection(problem=f"its reply is invalid: {error}"[:200])
    except OrchestrateError as error:
        return Inspection(problem=error.what[:200])
    try:
        await asyncio.to_thread(_keep, folder, found.files)
    except OSError as error:
        note(f"the evidence of {link.spec.name} cannot be kept: {error}")
    return found.inspection


def _keep(folder: Path, files: Mapping[str, bytes]) -> None:
    """Files replace those of an earlier look."""
    make_private_dir(folder)
    for name, content in files.items():
        write_atomic(folder / name, content)
