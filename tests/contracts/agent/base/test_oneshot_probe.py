"""A probe in one round trip: the answer is the agent's own, and nothing stays behind."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.agent_client.channel import AgentChannel
from orchestrator.adapters.agent_client.oneshot_client import Glance, take_glance
from orchestrator.adapters.transport.local_process import LocalTransport
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.model.inventory import NodeSpec, PythonSpec
from orchestrator.node_agent.oneshot_probe import strict_json
from orchestrator.parsing.replies.probe_reply import parse_facts
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

GLANCE_S = 30.0


async def glance(spec: NodeSpec, request: dict[str, object] | None = None) -> Glance:
    transport = LocalTransport(spec.name)
    try:
        return await take_glance(
            transport, spec, request or {}, time.time, timeout_s=scaled(GLANCE_S)
        )
    finally:
        await transport.close()


async def test_it_tells_what_the_agent_tells(spec: NodeSpec, channel: AgentChannel) -> None:
    """But for what changes from moment to moment."""
    seen = await glance(spec)
    facts = parse_facts("n1", seen.fields, asked=seen.asked, answered=seen.answered)
    reply = await channel.request("probe", timeout_s=scaled(GLANCE_S))
    told = parse_facts("n1", reply.fields, asked=seen.asked, answered=seen.answered)

    moving = {
        "clock_offset_s": 0.0,
        "round_trip_s": 0.0,
        "disk_free_bytes": 0,
        "disks": (),
        "interfaces": (),
        "uptime_s": 0.0,
        "zombies": 0,
        "stuck": (),
    }
    assert replace(facts, **moving) == replace(told, **moving)  # type: ignore[arg-type]
    assert {i.name for i in facts.interfaces} >= {"lo"}
    assert abs(facts.clock_offset_s) < 1


async def test_a_node_that_lacks_the_agent_gets_it_once(spec: NodeSpec, tmp_path: Path) -> None:
    fresh = replace(spec, workdir=str(tmp_path / "work"))
    first, second = await glance(fresh), await glance(fresh)

    (agent,) = (tmp_path / "work" / "node" / "agents").iterdir()
    assert (agent / "orchestrator/node_agent/facts/nvml.py").is_file()
    assert first.fields["facts"]["hostname"] == second.fields["facts"]["hostname"]


async def test_the_ranks_interpreter_is_asked_where_it_is_wanted(spec: NodeSpec) -> None:
    python = {"kind": "interpreter", "value": "python3"}
    only_with_gpus = await glance(
        spec, {"python": python, "python_if": "gpus", "modules": ["json"]}
    )
    always = await glance(spec, {"python": python, "modules": ["json"]})
    absent = await glance(spec, {"python": {"kind": "venv", "value": "/no/such"}})

    assert "modules" not in only_with_gpus.fields["facts"]
    assert "json" in always.fields["facts"]["modules"]
    assert any("no interpreter" in note for note in absent.fields["notes"])


async def test_an_unsafe_workdir_is_refused(spec: NodeSpec, tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(PreflightError, match="could not be started") as refused:
        await glance(replace(spec, workdir=str(open_to_all / "work")))
    assert "writable by everybody" in refused.value.why


@pytest.mark.parametrize(
    "says",
    ["exit 3", "echo no python here", "head -c 3000000 /dev/zero"],
)
async def test_what_is_no_answer_is_an_error_with_its_node(
    says: str, spec: NodeSpec, tmp_path: Path
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    broken = replace(spec, python=PythonSpec(base=str(program)))
    with pytest.raises(PreflightError) as refused:
        await glance(broken)
    assert refused.value.where == "n1"


async def test_nothing_stays_behind(spec: NodeSpec) -> None:
    await glance(spec)
    assert left_running() == []


def left_running() -> list[Path]:
    return [process for process in Path("/proc").glob("[0-9]*") if _is_ours(process)]


def _is_ours(process: Path) -> bool:
    """Whether it is an agent's interpreter that this process started."""
    try:
        words = (process / "cmdline").read_bytes()
        parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return False
    return b"orchestrate-agent" in words and parent == str(os.getpid())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_what_is_written_by_hand_is_json(value: Any) -> None:
    assert json.loads(strict_json(value, depth=99)) == value


def test_numbers_that_json_lacks_are_null() -> None:
    assert json.loads(strict_json([float("nan"), float("inf"), -float("inf")])) == [None] * 3
