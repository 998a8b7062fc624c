"""What a node has, in one round trip: no agent stays behind to be talked to."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from orchestrator.adapters.agent_client.frames import BadFrame, decode_frame
from orchestrator.adapters.agent_client.greeting import (
    END_S,
    raise_not_started,
    read_frame_line,
    read_status,
)
from orchestrator.adapters.agent_client.package import agent_package, start_command
from orchestrator.adapters.transport.transport import ChannelClosed, LineTooLong, Process, Transport
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.base.outcome import describe_outcome
from orchestrator.core.model.inventory import NodeSpec

STDERR_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """The answer to a probe, and our wall clock when it began and when it had come."""

    fields: Mapping[str, Any]
    asked: float
    answered: float


async def take_glance(
    transport: Transport,
    spec: NodeSpec,
    request: Mapping[str, object],
    wall: Callable[[], float],
    *,
    timeout_s: float,
) -> Glance:
    """Ask ``spec``'s node once. ``timeout_s`` bounds the start; the caller sets the deadline.

    Raises :class:`PreflightError` with the reason.
    """
    process = await transport.start(start_command(spec.python.base), timeout_s=timeout_s)
    try:
        return await _converse(process, spec, request, wall)
    except (ChannelClosed, EOFError):
        outcome = await process.wait(END_S)
        raise_not_started(
            spec, f"{spec.python.base} {describe_outcome(outcome)}: {await _last_words(process)}"
        )
    except (BadFrame, LineTooLong) as error:
        raise_not_started(spec, f"invalid reply: {error}")
    finally:
        await process.kill()


async def _converse(
    process: Process, spec: NodeSpec, request: Mapping[str, object], wall: Callable[[], float]
) -> Glance:
    nonce = secrets.token_hex(16)
    await process.write(agent_package().greeting(nonce, spec.workdir, glance=request))
    status = await read_status(process, nonce)
    if status == "need":
        with suppress(ChannelClosed):  # it may have refused meanwhile, and left
            await process.write(agent_package().parcel())
        status = await read_status(process, nonce)
    if status != "have":
        raise_not_started(spec, status.removeprefix("refused "))
    asked = wall()  # what came before was the start of an interpreter, of unknown length
    fields = decode_frame(await read_frame_line(process))
    if "error" in fields:
        raise PreflightError(
            "the node could not be probed",
            id="OR-PROBE-002",
            where=spec.name,
            why="".join(c for c in str(fields["error"]) if c.isprintable())[:500],
            remedy="report this with the node's distribution and python3 version",
        )
    return Glance(fields=fields, asked=asked, answered=wall())


async def _last_words(process: Process) -> str:
    try:
        async with asyncio.timeout(END_S):
            return (await process.read_stderr(STDERR_BYTES)).decode(errors="replace").strip()
    except (TimeoutError, ChannelClosed):
        return ""
