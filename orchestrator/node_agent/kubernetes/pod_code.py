"""The code of an exported job: from the folder that a pod finds it in to a verified snapshot."""

from __future__ import annotations

import io
import os

from orchestrator.node_agent.base.agent_errors import ABSENT, AgentFault
from orchestrator.node_agent.base.node_layout import NodeLayout
from orchestrator.node_agent.code.snapshot import offer_snapshot, push_part

MANIFEST, PART, COMPRESSED = "manifest", "part-", ".z"


def bring_code(layout: NodeLayout, folder: str, digest: str) -> None:
    """As over SSH every content has to have its digest. Raises :class:`AgentFault`."""
    try:
        parts = sorted(name for name in os.listdir(folder) if name.startswith(PART))
        offered = offer_snapshot(layout, digest, _read(folder, MANIFEST))
    except OSError as error:
        what = f"the code {digest[:16]} is not at {folder} ({error.strerror})"
        raise AgentFault(ABSENT, what + ": its ConfigMap, image or claim is another one") from error
    complete = offered.get("have") is True
    for name in [] if complete else parts:
        header = {"compressed": name.endswith(COMPRESSED), "last": name == parts[-1]}
        answer = push_part(layout, digest, header, io.BytesIO(_read(folder, name)))
        complete = answer["complete"] is True
    if not complete:
        raise AgentFault(ABSENT, f"the code at {folder} is not complete: export and apply again")


def _read(folder: str, name: str) -> bytes:
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()
