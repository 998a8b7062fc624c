"""The kit's side of leases under a real supervisor: fed by the agent, heard through a watch."""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

import pytest

from orchestrator.adapters.catalog.bundled import bundled_kit
from orchestrator.core.sharing.sample_protocol import LeaseAck, Output, Ready, Worked
from orchestrator.parsing.replies.sample_records import parse_sample_record
from tests.contracts.agent.attempts import Attempt, rank
from tests.contracts.agent.conftest import MakeAttempt
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

SCRIPT = """
import orchestrate_kit as kit
for group in kit.groups(6, 2):
    for sample in group:
        kit.complete(sample, {"twice": 2 * (sample.data or sample.index)}, 0.001, units=2)
"""
KIT = str(bundled_kit().parent)


async def feed(attempt: Attempt, number: int, rank: int, **word: Any) -> None:
    content = json.dumps(word).encode()
    request = {**attempt.names, "epoch": 1, "rank": rank, "name": f"{number:08d}.json"}
    request["sha256"] = hashlib.sha256(content).hexdigest()
    await attempt.channel.request("feed", request, timeout_s=scaled(10), payload=content)


def heard(attempt: Attempt, rank: int) -> list[object]:
    lines = bytes(attempt.files.get(f"exchange-{rank}.jsonl", b"")).splitlines()
    return [parse_sample_record(line, 6, 3) for line in lines]


async def test_leases_come_and_outputs_go(make_attempt: MakeAttempt) -> None:
    """Two workers of one node, one of them fed before it runs: acknowledged, answered, ended."""
    attempt = await make_attempt()
    env = {"ORCHESTRATE_SAMPLES": "leased", "PYTHONPATH": KIT, "WORLD_SIZE": "2"}
    await attempt.launch(
        *(rank(number, sys.executable, "-c", SCRIPT, **env) for number in (0, 1)), independent=True
    )
    groups = [{"group": 1, "first": 2, "count": 2}, {"group": 2, "first": 4, "count": 2}]
    await feed(attempt, 1, 0, type="lease", lease="2.1", groups=groups)
    await attempt.follow(lambda a: len(heard(a, 0)) >= 8)
    data = [{"group": 0, "first": 0, "count": 2, "data": [30, 40]}]
    await feed(attempt, 1, 1, type="lease", lease="2.2", groups=data)
    await attempt.follow(lambda a: len(heard(a, 1)) >= 5)
    for number in (0, 1):
        await feed(attempt, 2, number, type="end", lease="2.3")
    await attempt.to_end()

    assert attempt.only("concluded")["outcomes"] == {
        "rank-0": {"exited": 0},
        "rank-1": {"exited": 0},
    }
    first, second = heard(attempt, 0), heard(attempt, 1)
    assert [type(record) for record in second] == [
        Ready,
        LeaseAck,
        Output,
        Output,
        Worked,
        LeaseAck,
    ]
    assert [record.sample for record in first if isinstance(record, Output)] == [2, 3, 4, 5]
    assert first[1] == LeaseAck(1, "2.1", (1, 2))
    assert b'"twice": 60' in attempt.files["exchange-1.jsonl"]
