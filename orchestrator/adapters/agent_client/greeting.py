"""The first words between coordinator and agent: past the login's noise, to the agent's hello."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NoReturn

from orchestrator.adapters.agent_client.frames import MAX_FRAME_BYTES, BadFrame, decode_frame
from orchestrator.adapters.agent_client.package import agent_package
from orchestrator.adapters.transport.transport import ChannelClosed, LineTooLong, Process
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.base.outcome import describe_outcome
from orchestrator.core.model.inventory import NodeSpec

MAX_NOISE_BYTES = 1024 * 1024
MAX_NOISE_LINE_BYTES = 64 * 1024
MAX_TEXT = 4096
END_S = 3.0
NO_SPACE = "no space is left"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What the agent says of itself. ``workdir`` and ``home`` are absolute paths on the node."""

    agent: str
    python: str
    pid: int
    boot_id: str
    hostname: str
    home: str
    workdir: str
    offered: Mapping[str, Any] = field(default_factory=dict)


async def start_agent(
    process: Process,
    spec: NodeSpec,
    last_words: Callable[[], str],
    offer: Mapping[str, object] | None = None,
) -> Hello | None:
    """Send the bootstrap, and the agent if the node lacks it; wait for the hello.

    ``last_words`` is what the process wrote to its standard error last. ``offer`` is of a snapshot,
    and answered in ``Hello.offered``; None if the node has it: its agent has ended then. Raises
    :class:`PreflightError` with the reason. The caller sets the deadline.
    """
    nonce = secrets.token_hex(16)
    try:
        await process.write(agent_package().greeting(nonce, spec.workdir, offer=offer))
        status = await read_status(process, nonce)
        if status == "need":
            with suppress(ChannelClosed):  # it may have refused meanwhile, and left
                await process.write(agent_package().parcel())
        elif status != "have":
            raise_not_started(spec, status.removeprefix("refused "))
        frame = decode_frame(await _first_frame(process, spec, nonce))
        if offer is not None and frame == {"digest": offer["digest"], "have": True}:
            return None
        return _parse_hello(frame, nonce)
    except (ChannelClosed, EOFError):
        outcome = await process.wait(END_S)
        raise_not_started(spec, f"{spec.python.base} {describe_outcome(outcome)}: {last_words()}")
    except (BadFrame, LineTooLong) as error:
        raise_not_started(spec, f"the agent's first words make no sense: {error}")


async def _first_frame(process: Process, spec: NodeSpec, nonce: str) -> bytes:
    """The agent's own first line, unless what had to be unpacked or opened before it failed."""
    line = await read_frame_line(process)
    if line == b"\n":
        status = await read_status(process, nonce)
        raise_not_started(spec, status.removeprefix("refused "))
    return line


async def read_frame_line(process: Process, limit_bytes: int = MAX_FRAME_BYTES) -> bytes:
    """A whole line. Raises ``EOFError`` if the stream ends before its newline."""
    line = await process.read_line(limit_bytes)
    if not line.endswith(b"\n"):
        raise EOFError
    return line


async def read_status(process: Process, nonce: str) -> str:
    """What follows the nonce. Everything before it is a login banner or the like."""
    marker = nonce.encode() + b" "
    noise_bytes = 0
    while noise_bytes <= MAX_NOISE_BYTES:
        try:
            line = await read_frame_line(process, MAX_NOISE_LINE_BYTES)
        except LineTooLong:
            line = await process.read_stdout(MAX_NOISE_LINE_BYTES)
        if line.startswith(marker):
            return line[len(marker) :].decode(errors="replace").strip()
        noise_bytes += len(line)
    raise BadFrame(f"more than {MAX_NOISE_BYTES} bytes came before it")


def _parse_hello(frame: Mapping[str, object], nonce: str) -> Hello:
    pid = frame.get("pid")
    if frame.get("event") != "hello" or frame.get("nonce") != nonce or not isinstance(pid, int):
        raise BadFrame("not a hello")
    texts: dict[str, str] = {}
    for name in ("agent", "python", "boot_id", "hostname", "home", "workdir"):
        text = frame.get(name)
        if not isinstance(text, str):
            raise BadFrame(f"a hello without {name}")
        texts[name] = text[:MAX_TEXT]
    offered = frame.get("offered")
    return Hello(pid=pid, **texts, offered=offered if isinstance(offered, dict) else {})


def raise_not_started(spec: NodeSpec, why: str) -> NoReturn:
    remedy = "the node needs a Python 3.8 or newer (python.base in the inventory names it) and a "
    remedy += "workdir that is private and writable"
    if why.startswith(NO_SPACE):
        remedy = f"free some space on {spec.name}, or name a workdir on another disk"
    raise PreflightError(
        "the agent could not be started",
        id="OR-AGENT-START",
        where=spec.name,
        why="".join(c for c in why if c.isprintable())[:1000],
        remedy=remedy,
    )
