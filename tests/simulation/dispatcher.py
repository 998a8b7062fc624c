"""How a model of an agent takes requests: each is executed once, and all of them end with it.

An operation is a generator: what it yields is the time that passes until it goes on, and when the
agent dies in between it is cut off there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Any

from tests.simulation.node import FakeNode
from tests.simulation.watch import Watch

if TYPE_CHECKING:
    from tests.simulation.network import Conversation

Fields = dict[str, Any]
Answer = tuple[Fields, bytes]
Operation = Generator[float, None, Fields | Answer]

READS = frozenset({"probe", "offer", "interpreter", "dial", "runs", "outputs", "fetch", "inspect"})


class Fault(Exception):
    """The agent's refusal."""

    def __init__(self, id: str, message: str) -> None:
        super().__init__(message)
        self.id = id
        self.message = message


class Dispatcher:
    """Requests come in through :meth:`receive`, answers and events go out by ``conversation``.
    Operations are methods of a subclass, ``_op_`` and their names.
    """

    def __init__(self, node: FakeNode, conversation: Conversation, starter: str) -> None:
        self.node = node
        self.pid = node.next_pid()
        self.alive = True
        self.starter = starter
        self._conversation = conversation
        self._done: dict[str, tuple[Fields, bytes]] = {}
        self._executing: dict[str, int] = {}
        self._operations: dict[str, Generator[float, None, Any]] = {}
        self._watches: dict[str, Watch] = {}
        self._listeners: set[int] = set()
        node.agents.append(self)

    def receive(self, frame: Mapping[str, Any], payload: bytes) -> None:
        """Each id is executed once; a repeat gets the answer, also the one to come."""
        if not self.alive:
            return
        id, op = str(frame["id"]), str(frame["op"])
        if id in self._done:
            self._send(*self._done[id])
            return
        if id in self._executing:
            self._executing[id] += 1
            return
        self._executing[id] = 1
        perform: Callable[..., Operation] | None = getattr(self, f"_op_{op}", None)
        if perform is None:
            self._answer(id, op, Fault("OR-AGENT-REQUEST", f"unknown operation {op!r}"))
            return
        self._operations[id] = perform(frame, payload)
        self.node.world.call_later(self.node.world.draw_delay(self.node), self._go_on, id, op)

    def _go_on(self, id: str, op: str) -> None:
        if not self.alive:
            return
        try:
            pause_s = next(self._operations[id])
        except StopIteration as end:
            self._answer(id, op, end.value)
        except Fault as fault:
            self._answer(id, op, fault)
        except OSError as error:
            self._answer(id, op, Fault("OR-AGENT-SYSTEM", str(error)))
        else:
            self.node.world.call_later(pause_s * self.node.slow, self._go_on, id, op)

    def _answer(self, id: str, op: str, result: Fields | Answer | Fault) -> None:
        self._operations.pop(id, None)
        payload = b""
        if isinstance(result, Fault):
            error = {"id": result.id, "message": result.message}
            answer: Fields = {"id": id, "ok": False, "error": error}
        else:
            fields, payload = result if isinstance(result, tuple) else (result, b"")
            answer = {"id": id, "ok": True, **fields}
        if answer["ok"] and op not in READS:
            self._done[id] = (answer, payload)
        for _ in range(self._executing.pop(id)):
            self._send(answer, payload)
        watch = self._watches.get(id)
        if watch is not None:
            watch.start()

    def _send(self, frame: Fields, payload: bytes) -> None:
        self._conversation.up.send((frame, payload))

    def event(self, fields: Fields, payload: bytes = b"") -> None:
        self._send(fields, payload)

    def listening(self) -> set[tuple[str, int]]:
        return {(self.node.address, port) for port in self._listeners}

    def die(self, *, silently: bool = False) -> None:
        """Killed, or its input ended: what it was doing stops where it is; supervisors live on."""
        if not self.alive:
            return
        self.alive = False
        self.node.agents.remove(self)
        for operation in self._operations.values():
            operation.close()
        for watch in self._watches.values():
            watch.close()
        self.node.locks.release(self)
        if not silently:
            self._conversation.agent_ended()
