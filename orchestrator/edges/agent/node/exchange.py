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

from orchestrator.edges.agent.node import lease
from orchestrator.edges.agent.node.bootstrap import UnsafeDirectory, private_directory
from orchestrator.edges.agent.node.fault import BAD_REQUEST, BUSY, UNSAFE, AgentFault
from orchestrator.edges.agent.node.layout import check_name
from orchestrator.edges.agent.node.runs import existing
from orchestrator.edges.agent.node.wire import CHUNK_BYTES, field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from orchestrator.edges.agent.node.layout import NodeLayout
    from orchestrator.edges.agent.node.wire import Body

FEED = re.compile(r"\d{8}\.(json|bin)\Z")
MAX_RANK = 10_000_000
MAX_FEED_BYTES = 8 * 1024 * 1024 * 1024
MAX_WAITING = 4096


def feed(layout: NodeLayout, request: Mapping[str, Any], body: Body) -> dict[str, Any]:
    """Store the payload as ``name`` for ``rank``, once its digest is verified."""
    run, attempt = existing(layout, request)
    claim = lease.check_epoch(request)
    name = check_name(request.get("name"), "name of a feed", FEED)
    rank = field(request, "rank", int)
    if not 0 <= rank <= MAX_RANK or body.size > MAX_FEED_BYTES:
        raise AgentFault(BAD_REQUEST, f"no such rank, or more than {MAX_FEED_BYTES} bytes")
    inbox = attempt.inbox(rank)
    _private(inbox)
    if len(os.listdir(inbox)) >= MAX_WAITING:
        raise AgentFault(BUSY, f"rank {rank} has {MAX_WAITING} feeds to take already")
    staging = os.path.join(inbox, f".{name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        _store(body, staging, field(request, "sha256", str))
        with lease.held(run, claim):
            os.rename(staging, os.path.join(inbox, name))
    except BaseException:
        if os.path.lexists(staging):
            os.unlink(staging)
        raise
    return {"name": name}


def _store(body: Body, path: str, wanted: str) -> None:
    digest = hashlib.sha256()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        while True:
            chunk = body.read(CHUNK_BYTES)
            if not chunk:
                break
            digest.update(chunk)
            file.write(chunk)
    if digest.hexdigest() != wanted:
        raise AgentFault(BAD_REQUEST, "the content does not have the digest that was announced")


def _private(path: str) -> None:
    try:
        private_directory(path)
    except UnsafeDirectory as error:
        raise AgentFault(UNSAFE, str(error)) from error
