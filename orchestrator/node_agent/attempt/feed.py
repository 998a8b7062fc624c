"""What the coordinator feeds to ranks while they run: numbered files, complete or absent.

    exchange/exchange-<R>.jsonl   what rank R tells the coordinator; a watch streams it
    exchange/in/rank-<R>/         what the coordinator gives to rank R: 00000001.json, 00000002.bin
    exchange/out/                 larger contents that ranks offer; fetched like outputs

The rank takes the numbers in order and removes what it has taken. A repeat of what was taken does
no harm: nobody asks for that number again.
"""

from __future__ import annotations

import hashlib
import os
import re

from orchestrator.node_agent.attempt.run_operations import existing_attempt
from orchestrator.node_agent.base import lease_file as lease
from orchestrator.node_agent.base.agent_errors import BAD_REQUEST, BUSY, AgentFault
from orchestrator.node_agent.base.node_layout import check_name, private_folder
from orchestrator.node_agent.base.wire import CHUNK_BYTES, read_field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.node_agent.base.node_layout import NodeLayout
    from orchestrator.node_agent.base.wire import Body

FEED = re.compile(r"\d{8}\.(json|bin)\Z")
MAX_RANK = 10_000_000
MAX_FEED_BYTES = 8 * 1024 * 1024 * 1024
MAX_WAITING = 4096


def store_feed(layout: NodeLayout, request: Mapping[str, Any], body: Body) -> dict[str, Any]:
    """Store the payload as ``name`` for ``rank``, once its digest is verified.

    What is large comes in slices of ``total`` bytes, from ``offset`` 0 on, so that other requests
    get their turn between them; a repeat of the last slice that came does no harm.
    """
    run, attempt = existing_attempt(layout, request)
    claim = lease.check_epoch(request)
    name = check_name(request.get("name"), "name of a feed", FEED)
    rank = read_field(request, "rank", int)
    offset, total = (
        read_field(request, "offset", int, 0),
        read_field(request, "total", int, body.size),
    )
    if not 0 <= rank <= MAX_RANK or total > MAX_FEED_BYTES:
        raise AgentFault(BAD_REQUEST, f"no such rank, or more than {MAX_FEED_BYTES} bytes")
    if not 0 <= offset <= total - body.size:
        raise AgentFault(BAD_REQUEST, "a slice that is not within the whole")
    inbox = attempt.inbox(rank)
    private_folder(inbox)
    if len(os.listdir(inbox)) >= MAX_WAITING:
        raise AgentFault(BUSY, f"rank {rank} has {MAX_WAITING} feeds to take already")
    staging = os.path.join(inbox, f".{name}.{claim.epoch}")
    if not _append(body, staging, offset) or offset + body.size < total:
        return {"name": name}
    try:
        _verify(staging, read_field(request, "sha256", str))
        with lease.claimed_run(run, claim):
            os.rename(staging, os.path.join(inbox, name))
    except BaseException:
        if os.path.lexists(staging):
            os.unlink(staging)
        raise
    return {"name": name}


def _append(body: Body, path: str, offset: int) -> bool:
    """Write the payload at ``offset``; False: it was complete before, and is there or taken."""
    flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    flags |= 0 if offset else os.O_CREAT | os.O_TRUNC
    try:
        fd = os.open(path, flags, 0o600)
    except FileNotFoundError:
        return False
    with os.fdopen(fd, "wb") as file:
        if os.fstat(fd).st_size not in (offset, offset + body.size):
            raise AgentFault(BAD_REQUEST, "slices come one after the other")
        file.seek(offset)
        while True:
            chunk = body.read(CHUNK_BYTES)
            if not chunk:
                return True
            file.write(chunk)


def _verify(path: str, wanted: str) -> None:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):
            digest.update(chunk)
    if digest.hexdigest() != wanted:
        raise AgentFault(BAD_REQUEST, "the content does not have the digest that was announced")
