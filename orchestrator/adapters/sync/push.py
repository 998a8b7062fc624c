"""Brings a snapshot to a node over its agent's channel: offer it, send what is missing.

An unchanged tree costs one small request. Where the node has an earlier snapshot of the tree, what
changed since is offered alone. Nodes that lack the same contents share one pack; nodes that share a
file system are served one after the other, and to all but the first nothing has to be sent.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import zlib
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestrator.adapters.agent_client.channel import AgentError
from orchestrator.adapters.agent_client.connect_agent import Requests
from orchestrator.adapters.sync.code_snapshot import Snapshot
from orchestrator.adapters.sync.file_digests import digest_of_file, files_changed_error
from orchestrator.adapters.sync.ignore_rules import IGNORE_FILE
from orchestrator.adapters.sync.pack import ContentChanged, Contents, Pack
from orchestrator.core.base.errors import DeadlineError, OrchestrateError, PreflightError
from orchestrator.core.base.manifest import is_digest

# More than one round is needed when a file changes meanwhile, or the node's disk loses something.
MAX_ROUNDS = 3
# While the node writes one part, the next one is on its way.
WINDOW = 2
MIN_TIMEOUT_S = 0.1
DISK_FULL = "OR-AGENT-DISK"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """What travelled to one node: distinct file contents, and bytes as compressed."""

    files: int = 0
    bytes: int = 0


async def push_snapshot(
    channel: Requests,
    snapshot: Snapshot,
    *,
    timeout_s: float,
    check: bool = False,
    offered: Mapping[str, Any] | None = None,
) -> Sent:
    """Return when the node holds ``snapshot`` completely. ``timeout_s`` bounds the whole.

    ``check`` has the node look at each file of a snapshot it already holds. ``offered``: what it
    has answered to ``snapshot.offer`` already, if anything. Raises what
    ``channel.request`` raises, ``DeadlineError``, and ``PreflightError`` when files changed
    meanwhile, the node answers nonsense, or it does not keep what it was sent. Whatever arrived is
    kept there: calling again goes on.
    """
    return await _Push(channel, snapshot, timeout_s).run(check, offered or {})


class _Push:
    def __init__(self, channel: Requests, snapshot: Snapshot, timeout_s: float) -> None:
        self._channel = channel
        self._snapshot = snapshot
        self._timeout_s = timeout_s
        self._deadline = asyncio.get_running_loop().time() + timeout_s
        self._files = 0
        self._bytes = 0

    async def run(self, check: bool, offered: Mapping[str, Any]) -> Sent:
        asked = {**self._snapshot.offer, **({"check": True} if check else {})}
        fields = offered
        if fields.get("digest") != self._snapshot.digest:
            fields = await self._request("offer", asked)
        if fields.get("have") is not True:
            wait_s = (self._deadline - asyncio.get_running_loop().time()) / 2
            async with self._snapshot.turns.take(fields.get("store"), wait_s) as waited:
                if waited:
                    fields = await self._request("offer", asked)
                if fields.get("have") is not True:
                    await self._send(fields.get("base"))
        return Sent(files=self._files, bytes=self._bytes)

    async def _send(self, base: object) -> None:
        if not await self._send_change(base):
            await self._send_whole()

    async def _send_change(self, base: object) -> bool:
        """Whether the node could make the snapshot out of ``base``, which it has."""
        if not is_digest(base):
            return False
        change = await asyncio.to_thread(self._snapshot.change_from, str(base))
        if change is None:
            return False
        fields = await self._request("offer", {"base": change.base}, change.packed)
        if fields.get("have") is not True:
            if "missing" not in fields:
                return False
            await self._send_missing(change.contents, fields, {"base": change.base})
        return True

    async def _send_whole(self) -> None:
        packed = await asyncio.to_thread(lambda: self._snapshot.packed_manifest)
        fields = await self._request("offer", self._snapshot.offer, packed)
        if fields.get("have") is not True:
            await self._send_missing(self._snapshot.contents, fields, {})

    async def _send_missing(
        self, contents: Contents, fields: Mapping[str, Any], header: Mapping[str, Any]
    ) -> None:
        """Send what the node asks for in ``fields`` until it has all."""
        missing = self._missing(contents, fields)
        for _ in range(MAX_ROUNDS):
            fields = await self._send_pack(contents.pack(missing), header)
            if fields.get("complete") is True:
                return
            missing = self._missing(contents, fields)
            await asyncio.to_thread(_check_sources, contents, missing)
        raise self._fault("the node does not keep what it is sent", "OR-SYNC-007", "")

    async def _send_pack(self, shared: Pack, header: Mapping[str, Any]) -> Mapping[str, Any]:
        """Push every part in order; what the node says after the last one."""
        async with shared as pack:
            self._files += pack.contents
            pending: deque[asyncio.Task[Mapping[str, Any]]] = deque()
            fields: Mapping[str, Any] = {}
            try:
                for number in range(len(pack)):
                    pending.append(await self._begin_part(pack, number, header))
                    if len(pending) == WINDOW:
                        fields = await pending.popleft()
                while pending:
                    fields = await pending.popleft()
            finally:
                # Not cancelled: a request that is cut off while it is sent costs the channel.
                await asyncio.gather(*pending, return_exceptions=True)
            return fields

    async def _begin_part(
        self, pack: Pack, number: int, header: Mapping[str, Any]
    ) -> asyncio.Task[Mapping[str, Any]]:
        try:
            part = await pack.part(number)
        except ContentChanged as error:
            raise files_changed_error(error.path) from error
        last = number == len(pack) - 1
        header = {**header, "compressed": part.compressed, "last": last}
        return asyncio.create_task(self._request("push", header, part.data))

    async def _request(
        self, op: str, arguments: Mapping[str, Any], payload: bytes = b""
    ) -> Mapping[str, Any]:
        left_s = self._deadline - asyncio.get_running_loop().time()
        if left_s <= 0:
            raise DeadlineError(
                f"the code was not there within {self._timeout_s:g} s",
                id="OR-SYNC-008",
                where=self._channel.node,
                remedy="run the command again: what arrived is kept and not sent again",
            )
        digest = self._snapshot.digest
        try:
            reply = await self._channel.request(
                op,
                {"digest": digest, **arguments},
                timeout_s=max(left_s, MIN_TIMEOUT_S),
                payload=payload,
            )
        except AgentError as error:
            raise self._refused(error) from error
        if reply.fields.get("digest") != digest:
            raise self._fault("the node answered about other code", "OR-SYNC-006", f"{digest=}")
        self._bytes += len(payload)
        return reply.fields

    def _refused(self, error: AgentError) -> OrchestrateError:
        """What a person can do about a refusal, where that is known."""
        if error.id != DISK_FULL:
            return error
        return PreflightError(
            "the node has no room for the code",
            id="OR-SYNC-009",
            where=self._channel.node,
            why=error.what,
            remedy=f"free space there, or list in {IGNORE_FILE} what the job does not read; "
            "what arrived is kept",
        )

    def _missing(self, contents: Contents, fields: Mapping[str, Any]) -> bytes:
        """The bitmap of the contents that the node asks for."""
        count = len(contents.blobs)
        size = (count + 7) // 8
        try:
            expand = zlib.decompressobj()
            bits = expand.decompress(base64.b64decode(fields["missing"], validate=True), size + 1)
        except (KeyError, TypeError, ValueError, binascii.Error, zlib.error):
            bits = b""
        if len(bits) != size or not any(bits) or int.from_bytes(bits, "little") >> count:
            what = "invalid reply from the node agent"
            raise self._fault(what, "OR-SYNC-006", f"{fields!r:.200}")
        return bits

    def _fault(self, what: str, id: str, why: str) -> PreflightError:
        return PreflightError(
            what,
            id=id,
            where=self._channel.node,
            why=why,
            remedy="run the command again; if it persists, check the node's disk and its workdir",
        )


def _check_sources(contents: Contents, missing: bytes) -> None:
    """The node refused these contents: was it our file that changed?"""
    for index, (digest, size) in enumerate(contents.blobs.items()):
        if missing[index // 8] >> index % 8 & 1:
            source = contents.sources[digest]
            if digest_of_file(str(source), size).hex() != digest:
                raise files_changed_error(source)
