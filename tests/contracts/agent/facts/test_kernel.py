"""What a node's kernel said lately, as far as we may read it."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from datetime import datetime
from pathlib import Path

import pytest

from orchestrator.adapters.agent_client.channel import AgentChannel
from orchestrator.node_agent.facts.kernel import _line
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

KMSG = Path("/dev/kmsg")


async def test_new_lines_come_with_their_time_and_old_ones_stay_away(
    channel: AgentChannel,
) -> None:
    """A real record of this kernel, written now, in the form that diagnosis reads."""
    word = f"orchestrate test {uuid.uuid4().hex}"
    await asyncio.to_thread(KMSG.write_text, f"<6>{word}\n")

    reply = await channel.request("kernel", {"since_s": 60.0}, timeout_s=scaled(30))

    (line,) = [text for text in reply.payload.decode().splitlines() if word in text]
    match = re.fullmatch(rf"(\S+) kernel: {word}", line)
    assert match is not None
    at = datetime.fromisoformat(match[1]).timestamp()
    assert abs(time.time() - at) < 30

    older = await channel.request("kernel", {"since_s": 0.0}, timeout_s=scaled(30))
    assert word not in older.payload.decode()


def test_records_are_lines_with_a_date() -> None:
    """Continuation fields are left out; what is no record gives no line."""
    record = b"6,339,5140900,-;NVRM: Xid (PCI:0000:3b:00): 79, gone\n SUBSYSTEM=pci\n"
    line = _line(record, now=1_000_000.0, clock=6.0, since_s=10.0)

    assert line.endswith(b" kernel: NVRM: Xid (PCI:0000:3b:00): 79, gone\n")
    assert _line(record, now=1_000_000.0, clock=600.0, since_s=10.0) == b""
    assert _line(b"no record", now=1_000_000.0, clock=6.0, since_s=10.0) == b""
