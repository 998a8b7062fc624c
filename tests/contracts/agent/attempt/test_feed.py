"""What the coordinator feeds to ranks: complete and verified, or not there; in slices if large."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.agent_client.channel import AgentError
from tests.contracts.agent.attempts import Attempt
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

NAME = "00000001.bin"
CONTENT = bytes(range(256)) * 40


@pytest.fixture
async def launched(attempt: Attempt) -> Attempt:
    """An attempt whose rank waits to be fed."""
    argv = ["/bin/sh", "-c", "sleep 60"]
    await attempt.launch({"label": "rank-0", "rank": 0, "argv": argv, "env": {}})
    return attempt


def inbox(attempt: Attempt) -> Path:
    return attempt.root / "exchange" / "in" / "rank-0"


async def feed(attempt: Attempt, payload: bytes, **fields: Any) -> None:
    digest = hashlib.sha256(CONTENT).hexdigest()
    request = {**attempt.names, "epoch": 1, "rank": 0, "name": NAME, "sha256": digest, **fields}
    await attempt.channel.request("feed", request, timeout_s=scaled(15), payload=payload)


async def test_a_feed_is_there_once_all_its_slices_are(launched: Attempt) -> None:
    """The rank sees nothing before; a slice that is repeated after a broken link does no harm."""
    size = 3000
    for offset in range(0, len(CONTENT), size):
        assert not (inbox(launched) / NAME).exists()
        for _ in range(2):
            part = CONTENT[offset : offset + size]
            await feed(launched, part, offset=offset, total=len(CONTENT))
    assert (inbox(launched) / NAME).read_bytes() == CONTENT
    assert [path.name for path in inbox(launched).iterdir()] == [NAME]


async def test_one_slice_is_the_whole(launched: Attempt) -> None:
    """As it is for words."""
    await feed(launched, CONTENT)
    assert (inbox(launched) / NAME).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "payload,fields",
    [
        (b"another content", {}),
        (CONTENT, {"offset": -1}),
        (CONTENT, {"offset": 1}),
        (CONTENT, {"total": 1 << 40}),
        (CONTENT, {"name": "../1.bin"}),
        (CONTENT, {"rank": -1}),
    ],
)
async def test_what_is_wrong_leaves_nothing(
    launched: Attempt, payload: bytes, fields: dict[str, Any]
) -> None:
    """Refused, and the channel goes on."""
    with pytest.raises(AgentError):
        await feed(launched, payload, **fields)
    assert not inbox(launched).exists() or not list(inbox(launched).iterdir())
    await feed(launched, CONTENT)


async def test_slices_come_one_after_the_other(launched: Attempt) -> None:
    """A gap is refused, not filled with zeros."""
    await feed(launched, CONTENT[:100], total=len(CONTENT))
    with pytest.raises(AgentError, match="one after the other"):
        await feed(launched, CONTENT[300:400], offset=300, total=len(CONTENT))
    assert not (inbox(launched) / NAME).exists()
