"""The coordinator's end of the channel to one node's agent.

Everything that arrives is untrusted: frames, payloads, nesting and what waits unread are bounded,
and what breaks a rule ends the channel.

    ChannelLost     the link, the agent or the protocol broke; the node may be fine
    AgentError      the agent answered that it cannot do this; ``id`` says why
    AgentTimeout    no answer in time; the request may or may not have been performed
    PreflightError  the agent could not be started
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from orchestrator.adapters.agent_client.frames import BadFrame, decode_frame, encode_frame
from orchestrator.adapters.agent_client.greeting import Hello, read_frame_line, start_agent
from orchestrator.adapters.agent_client.package import start_command
from orchestrator.adapters.transport.transport import ChannelClosed, LineTooLong, Process, Transport
from orchestrator.core.base.errors import DeadlineError, OrchestrateError
from orchestrator.core.base.outcome import describe_outcome
from orchestrator.core.model.inventory import NodeSpec

MAX_PAYLOAD_BYTES = 64 * 1024 * 1024
# A watch may have 4 MiB under way; what is queued beyond that was sent against the rules.
MAX_QUEUED_BYTES = 64 * 1024 * 1024
GRANT_BYTES = 1024 * 1024
PAYLOAD_S = 120.0
CLOSE_S = 3.0
# Of the time for a start: a login shell that takes more is named while there is time to say so.
LOGIN_SHARE = 0.9
PING_S = 20.0
STDERR_TAIL_BYTES = 4096


class ChannelLost(OrchestrateError):
    """The agent cannot be talked to any more over this channel."""


class AgentError(OrchestrateError):
    """The agent refused or failed; ``id`` is its own, such as ``OR-AGENT-FENCED``."""


class AgentTimeout(DeadlineError, TimeoutError):
    """No answer in time: unknown whether it was performed. Every operation may be repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A successful answer."""

    fields: Mapping[str, Any]
    payload: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEvent:
    """An unsolicited frame. ``watch`` is the id of the watch it belongs to, or ``""``."""

    name: str
    watch: str
    fields: Mapping[str, Any]
    payload: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A payload that need not be in memory: exactly ``size`` bytes in ``chunks``."""

    size: int
    chunks: AsyncIterable[bytes]


@dataclass(slots=True)
class _Inbox:
    """Events that nobody consumed yet."""

    events: deque[tuple[AgentEvent, int]] = field(default_factory=deque)
    queued_bytes: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, event: AgentEvent, size: int) -> None:
        self.queued_bytes += size
        if self.queued_bytes > MAX_QUEUED_BYTES:
            raise BadFrame("more events than may be under way")
        self.events.append((event, size))
        self.changed.set()

    def take(self) -> AgentEvent:
        event, size = self.events.popleft()
        self.queued_bytes -= size
        return event


class AgentChannel:
    """Requests and events over one running agent. Close it in any case."""

    def __init__(self, node: str, process: Process) -> None:
        self.node = node
        self.hello: Hello
        self.offered: Mapping[str, Any] = {}
        self._process = process
        self._ids = map(str, itertools.count(1))
        self._pending: dict[str, asyncio.Future[Reply]] = {}
        self._inbox = _Inbox()
        self._grants: dict[str, int] = {}
        self._writing = asyncio.Lock()
        self._lost: ChannelLost | None = None
        self._closed = False
        self._stderr = b""
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(
        cls,
        transport: Transport,
        spec: NodeSpec,
        *,
        timeout_s: float,
        offer: Mapping[str, object] | None = None,
    ) -> Self:
        """Start the agent on ``spec``'s node and wait for its hello.

        ``offer`` is of a snapshot, and answered in ``offered``; of one that the node is known to
        have, that is all: the channel is lost.
        """
        process: Process | None = None
        try:
            async with asyncio.timeout(timeout_s):
                process = await transport.start(
                    start_command(spec.python.base), timeout_s=LOGIN_SHARE * timeout_s
                )
                channel = cls(spec.name, process)
                channel._tasks.append(asyncio.create_task(channel._keep_stderr()))
                hello = await start_agent(process, spec, channel._last_words, offer)
                if hello is None:
                    channel.offered = {**(offer or {}), "have": True}
                    channel._lose("the node has what was offered")
                    return channel
                channel.hello, channel.offered = hello, hello.offered
                channel._tasks.append(asyncio.create_task(channel._read()))
                channel._tasks.append(asyncio.create_task(channel._ping()))
                return channel
        except TimeoutError:
            await _abandon_process(process)
            raise AgentTimeout(
                f"the agent did not start within {timeout_s:g} s",
                id="OR-AGENT-TIMEOUT",
                where=spec.name,
                remedy="check the node's load and the file system of its workdir",
            ) from None
        except BaseException:
            await _abandon_process(process)
            raise

    # ---- requests -------------------------------------------------------------------------------

    async def request(
        self,
        op: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float,
        payload: bytes | Payload = b"",
        id: str | None = None,
    ) -> Reply:
        """Perform ``op`` on the node. ``id`` repeats an earlier request of this channel.

        Raises :class:`AgentError`, :class:`ChannelLost`, :class:`AgentTimeout`.
        """
        id = id or next(self._ids)
        if id in self._pending:
            raise ValueError(f"request {id} still waits for its answer")
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        if self._lost:
            raise self._lost
        self._pending[id] = answer
        try:
            async with asyncio.timeout(timeout_s):
                await self._send({**(arguments or {}), "id": id, "op": op}, payload)
                return await answer
        except TimeoutError:
            raise AgentTimeout(
                f"the agent did not answer {op!r} within {timeout_s:g} s",
                id="OR-AGENT-TIMEOUT",
                where=self.node,
            ) from None
        finally:
            del self._pending[id]
            if answer.done() and not answer.cancelled():
                answer.exception()  # it may have failed after we stopped waiting

    async def watch(self, arguments: Mapping[str, Any], *, timeout_s: float) -> str:
        """Begin a watch; its id. The stream comes through :meth:`events`."""
        return str((await self.request("watch", arguments, timeout_s=timeout_s)).fields["watch"])

    async def _send(self, frame: Mapping[str, Any], payload: bytes | Payload = b"") -> None:
        size = len(payload) if isinstance(payload, bytes) else payload.size
        head = encode_frame({**frame, "payload": size} if size else frame)
        async with self._writing:
            if self._lost:
                raise self._lost
            try:
                await self._process.write(head)
                await self._write_payload(payload)
            except ChannelClosed as error:
                self._lose(str(error))
                raise self._lost_error() from error
            except BaseException:
                # Part of a frame may be out: nothing that follows could be understood.
                self._lose("a request was cut off while it was sent")
                raise

    async def _write_payload(self, payload: bytes | Payload) -> None:
        if isinstance(payload, bytes):
            if payload:
                await self._process.write(payload)
            return
        sent = 0
        async for chunk in payload.chunks:
            sent += len(chunk)
            if sent > payload.size:
                break
            await self._process.write(chunk)
        if sent != payload.size:
            raise ValueError(f"an upload of {payload.size} bytes came with {sent}")

    # ---- events ---------------------------------------------------------------------------------

    async def events(self) -> AsyncGenerator[AgentEvent, None]:
        """Unsolicited frames in order, for one consumer. Raises :class:`ChannelLost` at the end,
        unless it was :meth:`close` that ended it.
        """
        while True:
            while not self._inbox.events:
                if self._closed:
                    return
                if self._lost:
                    raise self._lost
                self._inbox.changed.clear()
                await self._inbox.changed.wait()
            event = self._inbox.take()
            yield event
            await self._grant(event)

    async def _grant(self, event: AgentEvent) -> None:
        """Consumed: the watch may send as much again."""
        cost = event.fields.get("cost")
        if not event.watch or type(cost) is not int or cost <= 0:
            return
        total = self._grants.get(event.watch, 0) + cost
        if total >= GRANT_BYTES and not self._lost:
            credit = {"id": next(self._ids), "op": "credit", "watch": event.watch, "bytes": total}
            with contextlib.suppress(ChannelLost):
                await self._send(credit)
            total = 0
        self._grants[event.watch] = total

    async def _ping(self) -> None:
        """Tell the agent that somebody is there: it ends after some minutes without a word."""
        while self._lost is None:
            await asyncio.sleep(PING_S)
            # One that cannot be sent in time loses the channel, unless it waited for its turn.
            with contextlib.suppress(ChannelLost, TimeoutError):
                async with asyncio.timeout(PING_S):
                    await self._send({"id": next(self._ids), "op": "ping"})

    # ---- reading --------------------------------------------------------------------------------

    async def _read(self) -> None:
        try:
            while True:
                line = await read_frame_line(self._process)
                frame = decode_frame(line)
                payload = await self._payload(frame.pop("payload", 0))
                self._dispatch(frame, payload, len(line) + len(payload))
        except (BadFrame, LineTooLong) as error:
            self._lose(f"protocol error: {error}")
            await self._process.kill()
        except TimeoutError:
            self._lose("the node stopped in the middle of a frame")
            await self._process.kill()
        except (ChannelClosed, EOFError):
            outcome = await self._process.wait(CLOSE_S)
            self._lose(f"the agent {describe_outcome(outcome)}. {self._last_words()}".strip())

    async def _payload(self, size: object) -> bytes:
        if type(size) is not int or not 0 <= size <= MAX_PAYLOAD_BYTES:
            raise BadFrame(f"unreasonable payload size {str(size)[:40]}")
        if not size:
            return b""
        data = bytearray()
        async with asyncio.timeout(PAYLOAD_S):
            while len(data) < size:
                chunk = await self._process.read_stdout(size - len(data))
                if not chunk:
                    raise EOFError
                data += chunk
        return bytes(data)

    def _dispatch(self, frame: dict[str, Any], payload: bytes, size: int) -> None:
        if "event" in frame:
            name, watch = frame.pop("event"), frame.pop("watch", "")
            if not isinstance(name, str) or not isinstance(watch, str):
                raise BadFrame("an event without a name")
            event = AgentEvent(name=name, watch=watch, fields=frame, payload=payload)
            self._inbox.put(event, size)
            return
        id = frame.pop("id", None)
        answer = self._pending.get(id) if isinstance(id, str) else None
        if answer is None or answer.done():
            return  # nobody waits for it any more
        if frame.pop("ok", None) is True:
            answer.set_result(Reply(fields=frame, payload=payload))
        else:
            answer.set_exception(_agent_error(self.node, frame.get("error")))

    async def _keep_stderr(self) -> None:
        while chunk := await self._process.read_stderr(STDERR_TAIL_BYTES):
            self._stderr = (self._stderr + chunk)[-STDERR_TAIL_BYTES:]

    def _last_words(self) -> str:
        lines = self._stderr.decode(errors="replace").strip().splitlines()
        return "".join(c for c in lines[-1] if c.isprintable())[:500] if lines else ""

    # ---- ending ---------------------------------------------------------------------------------

    def _lose(self, why: str) -> None:
        if self._lost is None:
            self._lost = ChannelLost(
                "the channel to the agent is gone",
                id="OR-AGENT-LOST",
                where=self.node,
                why=why,
            )
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(self._lost)
        self._inbox.changed.set()

    def _lost_error(self) -> ChannelLost:
        assert self._lost is not None
        return self._lost

    @property
    def lost(self) -> ChannelLost | None:
        """Why the channel is unusable, or None."""
        return self._lost

    async def close(self) -> None:
        """End the agent's process on the node; supervisors live on. Bounded, idempotent."""
        self._closed = True
        self._lose("it was closed")
        try:
            with contextlib.suppress(ChannelClosed, TimeoutError):
                async with asyncio.timeout(CLOSE_S):
                    await self._process.close_stdin()
                    await self._process.wait(CLOSE_S)
        finally:
            await self._process.kill()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)


async def _abandon_process(process: Process | None) -> None:
    if process is not None:
        await process.kill()


def _agent_error(node: str, error: object) -> AgentError:
    known = error if isinstance(error, dict) else {}
    id, message = known.get("id"), known.get("message")
    if not isinstance(id, str) or not id.startswith("OR-AGENT-") or len(id) > 64:
        id = "OR-AGENT-UNKNOWN"
    text = message if isinstance(message, str) else json.dumps(message)
    text = "".join(c if c.isprintable() else " " for c in text)[:2000]
    return AgentError(text, id=id, where=node)
