"""A look at a node always ends in an answer: evidence, or why there is none."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.agent_client.channel import AgentError, AgentTimeout, ChannelLost, Reply
from orchestrator.core.model.inventory import NodeSpec, SshEndpoint
from orchestrator.core.run.evidence import Inspection
from orchestrator.engine.node.hang_inspection import look_at
from orchestrator.engine.node.link import NodeSilent

SPEC = NodeSpec(name="n1", ssh=SshEndpoint(host="n1"))
NAMED = {"run": "r", "node": "n1", "attempt": 1}


class Link:
    """A link that answers, or fails, as it is told."""

    def __init__(self, outcome: Reply | Exception, *, broken: bool = False) -> None:
        self.spec = SPEC
        self.broken = broken
        self._outcome = outcome

    async def request(self, op: str, fields: Mapping[str, Any], *, timeout_s: float) -> Reply:
        assert (op, dict(fields)) == ("inspect", NAMED)
        assert timeout_s <= 20
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def reply(document: object, **files: bytes) -> Reply:
    every = {"inspection.json": json.dumps(document).encode(), **files}
    listed = [{"name": name, "bytes": len(data)} for name, data in every.items()]
    return Reply(fields={"files": listed}, payload=b"".join(every.values()))


GOOD = reply({"ranks": [{"rank": 0, "pid": 7, "state": "T"}]}, raw=b"stacks")


async def look(link: Link, folder: Path) -> tuple[Inspection, list[str]]:
    notes: list[str] = []
    return await look_at(link, NAMED, folder, notes.append), notes  # type: ignore[arg-type]


async def test_evidence_is_kept_and_told(tmp_path: Path) -> None:
    """For this user's eyes only; a later look replaces an earlier one."""
    folder = tmp_path / "hang" / "n1"
    for link in (Link(reply({"ranks": []}, raw=b"old")), Link(GOOD)):
        found, notes = await look(link, folder)
    assert [rank.state for rank in found.ranks] == ["T"]
    assert (folder / "raw").read_bytes() == b"stacks"
    assert stat.S_IMODE((folder / "inspection.json").stat().st_mode) == 0o600
    assert notes == []


@pytest.mark.parametrize(
    "error",
    [ChannelLost("gone", id="OR-AGENT-LOST"), NodeSilent(SPEC, 10.0, "no route")],
)
async def test_a_broken_link_proves_nothing(error: Exception, tmp_path: Path) -> None:
    found, _ = await look(Link(error), tmp_path)
    assert found == Inspection(reachable=False)


async def test_no_answer_is_an_answer_only_while_the_link_lives(tmp_path: Path) -> None:
    late = AgentTimeout("late", id="OR-AGENT-TIMEOUT")
    assert (await look(Link(late, broken=True), tmp_path))[0] == Inspection(reachable=False)
    found, _ = await look(Link(late), tmp_path)
    assert found.reachable
    assert "no answer within 20 s" in found.problem


@pytest.mark.parametrize(
    "outcome,words",
    [
        (AgentError("unknown operation 'inspect'", id="OR-AGENT-REQUEST"), "unknown operation"),
        (reply({"ranks": "none"}), "is invalid"),
        (reply({"ranks": []}, **{"../evil": b"x"}), "is invalid"),
        (Reply(fields={}), "is invalid"),
    ],
)
async def test_an_agent_that_refuses_or_lies_is_told_as_such(
    outcome: Reply | Exception, words: str, tmp_path: Path
) -> None:
    """An agent of an older version, or of somebody else's; nothing of it is kept."""
    found, _ = await look(Link(outcome), tmp_path / "hang")
    assert words in found.problem
    assert not (tmp_path / "hang").exists()
    assert not (tmp_path / "evil").exists()


async def test_evidence_that_cannot_be_kept_still_counts(tmp_path: Path) -> None:
    """A full disk of the coordinator: the verdict does not depend on the files."""
    (tmp_path / "hang").write_text("in the way")
    found, notes = await look(Link(GOOD), tmp_path / "hang")
    assert [rank.state for rank in found.ranks] == ["T"]
    assert len(notes) == 1
    assert "cannot be kept" in notes[0]
