"""The agent's dispatcher: reads requests, runs each once in a thread, answers as often as asked."""

from __future__ import annotations

import os
import sys
import threading
from collections import OrderedDict

from orchestrator.node_agent.base.agent_errors import BAD_REQUEST, SYSTEM, AgentFault, shorten_value
from orchestrator.node_agent.base.bootstrap import refusal_line
from orchestrator.node_agent.base.call import Call, Context
from orchestrator.node_agent.base.node_layout import NodeLayout
from orchestrator.node_agent.base.sysfs import boot_id
from orchestrator.node_agent.base.wire import Body, FrameWriter, WireError, note_contact, read_frame
from orchestrator.node_agent.operations import INLINE, OPERATIONS, READS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, BinaryIO

MAX_CONCURRENT = 64
MAX_ANSWERS = 512
MAX_ID_CHARACTERS = 128


class RecentAnswers:
    """Remembers answers by request id; a repeat that comes too early shares the answer to come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._executing: dict[str, int] = {}
        self._done: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def begin(self, id: str) -> tuple[bool, dict[str, Any] | None]:
        """(whether to execute, the answer if it is known)."""
        with self._lock:
            if id in self._done:
                return False, self._done[id]
            repeats = self._executing.get(id)
            self._executing[id] = 0 if repeats is None else repeats + 1
            return repeats is None, None

    def finish(self, id: str, answer: dict[str, Any], keep: bool) -> int:
        """How often the answer is to be sent. Reads are not kept: a repeat reads again."""
        with self._lock:
            if keep:
                self._done[id] = answer
                while len(self._done) > MAX_ANSWERS:
                    self._done.popitem(last=False)
            return 1 + self._executing.pop(id)


class Agent:
    """One channel's end on the node."""

    def __init__(self, stream: BinaryIO, context: Context) -> None:
        self._stream = stream
        self._context = context
        self._answers = RecentAnswers()
        self._slots = threading.BoundedSemaphore(MAX_CONCURRENT)

    def serve(self) -> None:
        """Until the input ends. Raises :class:`WireError` for what is not a frame."""
        while True:
            note_contact()
            frame = read_frame(self._stream)
            if frame is None or frame.get("op") == "bye":
                return
            body = Body(self._stream, frame.get("payload", 0))
            self._accept(frame, body)
            body.consumed.wait()

    def _accept(self, frame: dict[str, Any], body: Body) -> None:
        id, op = frame.get("id"), frame.get("op")
        if not isinstance(id, str) or not 0 < len(id) <= MAX_ID_CHARACTERS:
            raise WireError("a request without an id")
        if op in INLINE:
            body.drain()
            INLINE[op](self._context, frame)
            return
        new, answer = self._answers.begin(id)
        if not new:
            body.drain()
            if answer:
                self._context.writer.send(answer)
            return
        self._slots.acquire()
        arguments = (id, op, frame, body)
        threading.Thread(target=self._execute, args=arguments, daemon=True).start()

    def _execute(self, id: str, op: object, frame: dict[str, Any], body: Body) -> None:
        payload = b""
        try:
            result, payload = self._perform(op, frame, body)
            answer = {"id": id, "ok": True, **result}
        except AgentFault as fault:
            answer = _refusal(id, fault.id, fault.message)
        except (OSError, EOFError) as error:
            answer = _refusal(id, SYSTEM, _system_message(error))
        except Exception as error:  # noqa: BLE001 - one broken request must not end the others
            answer = _refusal(id, SYSTEM, f"internal error: {type(error).__name__}: {error}")
        finally:
            self._slots.release()
        self._answer(id, op, answer, payload, body)

    def _perform(
        self, op: object, frame: dict[str, Any], body: Body
    ) -> tuple[dict[str, Any], bytes]:
        perform = OPERATIONS.get(op) if isinstance(op, str) else None
        if perform is None:
            raise AgentFault(BAD_REQUEST, f"unknown operation {shorten_value(op)}")
        result = perform(Call(self._context, frame, body))
        return result if isinstance(result, tuple) else (result, b"")

    def _answer(
        self, id: str, op: object, answer: dict[str, Any], payload: bytes, body: Body
    ) -> None:
        try:
            body.drain()
            keep = bool(answer["ok"]) and op not in READS
            for _ in range(self._answers.finish(id, answer, keep)):
                self._context.writer.send(answer, payload)
            self._context.after(id)
        except AgentFault as fault:
            self._context.writer.send(_refusal(id, fault.id, fault.message))
        except (OSError, EOFError):
            leave_channel(self._context)


def _refusal(id: str, fault: str, message: str) -> dict[str, Any]:
    return {"id": id, "ok": False, "error": {"id": fault, "message": message[:2000]}}


def _system_message(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.strerror}: {os.fsdecode(error.filename)}"
    return str(error) or type(error).__name__


def _answer_early(context: Context, offer: Mapping[str, Any]) -> dict[str, Any]:
    """What ``offer`` is answered; nothing where it is refused: it is asked again, and hears why.
    The hello waits for it, and has less time than a node may need to read a snapshot.
    """
    asked = {**offer, "op": "offer", "at_once": True}
    try:
        answer = OPERATIONS["offer"](Call(context, asked, Body(sys.stdin.buffer, 0)))
    except (AgentFault, OSError):
        return {}
    return answer if isinstance(answer, dict) else {}


def leave_channel(context: Context) -> None:
    """End this channel's process now, with what it started; supervisors live on."""
    context.close()
    os._exit(0)


def serve_channel(
    stream: BinaryIO,
    nonce: str,
    workdir: str,
    agent: str,
    offer: Mapping[str, Any] | None = None,
) -> None:
    """Say hello and serve the channel until it closes; or refuse, and say why.

    ``offer``: of a snapshot, as for the operation of that name; its answer comes with the hello.
    """
    try:
        layout = NodeLayout.open(workdir)
    except (AgentFault, OSError) as error:
        os.write(1, refusal_line(nonce, error))
        return
    out = os.dup(1)
    os.dup2(2, 1)  # a stray print must not tear a frame
    writer = FrameWriter(out)
    context = Context(writer, layout)
    hello = {
        "event": "hello",
        "nonce": nonce,
        "agent": os.path.basename(agent),
        "python": sys.version.split()[0],
        "pid": os.getpid(),
        "boot_id": boot_id(),
        "hostname": os.uname().nodename,
        "home": os.path.expanduser("~"),
        "workdir": workdir,
    }
    if offer is not None:
        hello["offered"] = _answer_early(context, offer)
    try:
        writer.send(hello)
        Agent(stream, context).serve()
    except WireError as error:
        sys.stderr.write(f"orchestrate agent: {error}\n")
        sys.stderr.flush()
    except (OSError, EOFError):
        pass
    leave_channel(context)
