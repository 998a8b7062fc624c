"""The way between the coordinator and one node, and the fake of the agent's channel over it.

As under SSH, bytes arrive in order or the channel breaks: a request is lost, or its reply, or it
arrives late at an agent that the coordinator has given up and replaced by another one. Besides,
the network may hand a request to its agent twice, which SSH never does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from orchestrator.adapters.agent_client.channel import (
    AgentError,
    AgentEvent,
    AgentTimeout,
    ChannelLost,
    Payload,
    Reply,
)
from orchestrator.adapters.agent_client.greeting import Hello
from orchestrator.core.base.errors import PreflightError
from tests.simulation.agent import FakeAgent
from tests.simulation.loop import PROCESS, Process, check_alive

if TYPE_CHECKING:
    from tests.simulation.node import FakeNode

Item = tuple[dict[str, Any], bytes] | None  # None: the end of the stream
KEEPALIVE_S = 6.0
RETRANSMIT_S = 0.2
CLOSE_S = 3.0
# How long sshd keeps the agent of a client that vanished without a word.
SSHD_NOTICES_S = 60.0


class Lane:
    """One direction of a channel: in order, held up while the link is cut."""

    def __init__(self, link: Link, deliver: Callable[[Item], None], *, down: bool) -> None:
        self._link = link
        self._deliver = deliver
        self._down = down
        self._queue: deque[tuple[float, Item]] = deque()
        self._last_s = 0.0
        self._pumping = False
        self.open = True

    def send(self, *item: Any) -> None:
        """``send((frame, payload))``, or ``send(None)`` for the end of the stream."""
        if not self.open:
            return
        world = self._link.node.world
        self._last_s = max(self._last_s, world.now + self._link.latency())
        self._queue.append((self._last_s, item[0]))
        self._pump_at(self._last_s)

    def resume(self) -> None:
        """The link is back: what was held up is sent again."""
        if self._queue:
            self._pump_at(self._link.node.world.now + RETRANSMIT_S)

    def cut_off(self, keep: int) -> None:
        """The channel broke: ``keep`` of what is under way still arrives, then the end."""
        while len(self._queue) > keep:
            self._queue.pop()
        self.send(None)
        self.open = False

    def _pump_at(self, when: float) -> None:
        if not self._pumping:
            self._pumping = True
            world = self._link.node.world
            world.call_later(max(0.0, when - world.now), self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if not self._link.passes(down=self._down):
            return
        now = self._link.node.world.now
        while self._queue and self._queue[0][0] <= now:
            self._deliver(self._queue.popleft()[1])
        if self._queue:
            self._pump_at(self._queue[0][0])


class Conversation:
    """A channel and its agent, with a lane each way."""

    def __init__(self, link: Link, owner: Process | None) -> None:
        self.link = link
        self.owner = owner
        self.down = Lane(link, self._at_agent, down=True)
        self.up = Lane(link, self._at_channel, down=False)
        self.agent = FakeAgent(link.node, self, owner.name if owner else "")
        self.channel = FakeChannel(self)
        link.conversations.append(self)

    def _at_agent(self, item: Item) -> None:
        if item is None:
            self.agent.die()
            return
        self.agent.receive(*item)
        self.link.node.world.watch_request(self, item[0], "executed")

    def _at_channel(self, item: Item) -> None:
        if item is None:
            self.channel.lose("the agent ended")
            self.close()
        else:
            self.channel.receive(*item)

    def agent_ended(self) -> None:
        """The agent's process is gone: its end of the pipe closes."""
        self.up.send(None)
        self.up.open = False

    def close(self) -> None:
        """Our end closes: what is under way still arrives, then the end of the stream."""
        self.down.send(None)
        self.down.open = False
        if self in self.link.conversations:
            self.link.conversations.remove(self)
            self.link.closing = [c for c in self.link.closing if c.agent.alive] + [self]
        # Also when that end never arrives.
        self.link.node.world.call_later(SSHD_NOTICES_S, self.agent.die)


class Link:
    """All channels between the coordinators and one node share its fate."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self.conversations: list[Conversation] = []
        self.closing: list[Conversation] = []
        self.down = True
        self.up = True
        self.delay_s = 0.002
        self.duplicates = False
        self._cuts = 0

    @property
    def whole(self) -> bool:
        return self.down and self.up and self.node.up

    def passes(self, *, down: bool) -> bool:
        return self.node.up and (self.down if down else self.up)

    def latency(self) -> float:
        return self.delay_s * self.node.world.random.uniform(0.5, 1.5)

    def cut(self, *, down: bool = True, up: bool = True) -> None:
        """Silence in one direction or both."""
        self.down, self.up = self.down and not down, self.up and not up
        self._notice_later()

    def heal(self) -> None:
        self.down = self.up = True
        self._cuts += 1
        for conversation in (*self.conversations, *self.closing):
            conversation.down.resume()
            conversation.up.resume()

    def vanish(self) -> None:
        """The node is gone without a word."""
        self._notice_later()

    def _notice_later(self) -> None:
        """Keepalive: a coordinator gives up the channels of a link that stays silent."""
        self._cuts += 1
        world = self.node.world
        world.call_later(KEEPALIVE_S, self._notice, self._cuts, tuple(self.conversations))

    def _notice(self, cut: int, silent: tuple[Conversation, ...]) -> None:
        # A node that came back has forgotten the connection; a link that healed has not.
        for conversation in silent:
            if cut == self._cuts or not conversation.agent.alive:
                conversation.channel.lose("keepalive: no answer")

    def reset(self) -> None:
        """Every connection breaks, and both ends know at once."""
        random = self.node.world.random
        for conversation in list(self.conversations):
            conversation.down.cut_off(random.randint(0, 2))
            conversation.up.cut_off(random.randint(0, 2))

    async def connect(self, timeout_s: float) -> FakeChannel:
        """Raises ``PreflightError``, ``TimeoutError`` as the real one does."""
        deadline = self.node.world.now + timeout_s
        await self._pass(2 * self.latency(), deadline)
        if not self.node.sshd:
            raise PreflightError("connection refused", id="OR-SSH-002", where=self.node.name)
        await self._pass((0.05 + 2 * self.latency()) * self.node.slow, deadline)
        check_alive()
        return Conversation(self, PROCESS.get()).channel

    async def _pass(self, takes_s: float, deadline: float) -> None:
        """A step of the handshake: packets are sent again until the link passes them."""
        await asyncio.sleep(takes_s)
        world = self.node.world
        while not self.whole:
            if world.now >= deadline:
                raise PreflightError("no answer", id="OR-SSH-001", where=self.node.name)
            await asyncio.sleep(min(1.0, max(0.01, deadline - world.now)))
        if world.now > deadline:
            raise TimeoutError


class FakeChannel:
    """The coordinator's end: what ``AgentChannel`` promises, over a :class:`Conversation`."""

    def __init__(self, conversation: Conversation) -> None:
        node = conversation.link.node
        self.node = node.name
        self.hello = Hello(
            agent="a" * 16,
            python="3.11.7",
            pid=conversation.agent.pid,
            boot_id=node.boot_id,
            hostname=node.name,
            home="/home/user",
            workdir="/home/user/.orchestrate",
        )
        self._conversation = conversation
        self._world = node.world
        self._ids = 0
        self._pending: dict[str, asyncio.Future[Reply]] = {}
        self._events: deque[AgentEvent] = deque()
        self._changed = asyncio.Event()
        self._lost: ChannelLost | None = None
        self._closed = False

    @property
    def lost(self) -> ChannelLost | None:
        return self._lost

    async def request(
        self,
        op: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_s: float,
        payload: bytes | Payload = b"",
        id: str | None = None,
    ) -> Reply:
        """Raises ``AgentError``, ``ChannelLost``, ``AgentTimeout``."""
        if self._lost:
            raise self._lost
        assert isinstance(payload, bytes)
        self._ids += 1
        id = id or str(self._ids)
        frame = {**(arguments or {}), "id": id, "op": op}
        self._world.watch_request(self._conversation, frame, "sent")
        check_alive()
        answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._pending[id] = answer
        try:
            async with asyncio.timeout(timeout_s):
                self._send(frame, payload)
                reply = await answer
        except TimeoutError:
            text = f"the agent did not answer {op!r} within {timeout_s:g} s"
            raise AgentTimeout(text, id="OR-AGENT-TIMEOUT", where=self.node) from None
        finally:
            del self._pending[id]
        self._world.watch_request(self._conversation, frame, "answered")
        check_alive()
        return reply

    def _send(self, frame: dict[str, Any], payload: bytes) -> None:
        link = self._conversation.link
        self._conversation.down.send((frame, payload))
        if link.duplicates and self._world.random.random() < 0.5:
            self._conversation.down.send((frame, payload))

    async def watch(self, arguments: Mapping[str, Any], *, timeout_s: float) -> str:
        return str((await self.request("watch", arguments, timeout_s=timeout_s)).fields["watch"])

    async def events(self) -> AsyncGenerator[AgentEvent, None]:
        """Raises ``ChannelLost`` at the end, unless it was closed by us."""
        while True:
            while not self._events:
                if self._closed:
                    return
                if self._lost:
                    raise self._lost
                self._changed.clear()
                await self._changed.wait()
            check_alive()
            yield self._events.popleft()

    def receive(self, frame: dict[str, Any], payload: bytes) -> None:
        """A frame arrived."""
        owner = self._conversation.owner
        if self._closed or (owner is not None and not owner.alive):
            return
        frame = dict(frame)
        if "event" in frame:
            name, watch = frame.pop("event"), frame.pop("watch", "")
            event = AgentEvent(name=name, watch=watch, fields=frame, payload=payload)
            self._events.append(event)
            self._changed.set()
            return
        answer = self._pending.get(frame.pop("id"))
        if answer is None or answer.done():
            return
        if frame.pop("ok") is True:
            answer.set_result(Reply(fields=frame, payload=payload))
        else:
            error = frame["error"]
            answer.set_exception(AgentError(error["message"], id=error["id"], where=self.node))

    def lose(self, why: str) -> None:
        if self._lost is None:
            what = "the channel to the agent is gone"
            self._lost = ChannelLost(what, id="OR-AGENT-LOST", where=self.node, why=why)
        for answer in self._pending.values():
            if not answer.done():
                answer.set_exception(self._lost)
        self._changed.set()

    async def close(self) -> None:
        """Bounded, idempotent."""
        if self._closed:
            return
        self._closed = True
        self.lose("it was closed")
        self._conversation.close()
        await asyncio.sleep(0.01 if self._conversation.link.whole else CLOSE_S)
