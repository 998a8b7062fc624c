"""Neither side trusts the other: manifests on the node, answers on the coordinator."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.agent_client.channel import Payload, Reply
from orchestrator.adapters.sync import pack
from orchestrator.adapters.sync.code_snapshot import Snapshot, TreePart, take_snapshot
from orchestrator.adapters.sync.push import push_snapshot
from orchestrator.core.base import manifest as core
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.base.manifest import digest_of
from orchestrator.node_agent.base.agent_errors import AgentFault
from orchestrator.node_agent.code import node_manifest as theirs
from orchestrator.node_agent.code.snapshot import PIECE, offer_snapshot
from tests.contracts.sync.trees import Node, write_tree
from tests.core.base.test_manifest import SAFE_PATHS, SAFE_TARGETS, UNSAFE_PATHS, UNSAFE_TARGETS
from tests.time_limits import scaled

X = digest_of(b"x")
HOSTILE_ROWS: list[list[Any]] = [
    *([[path, "f", 1, X]] for path in UNSAFE_PATHS),
    *([[path, "l", target]] for path, target in UNSAFE_TARGETS),
    [["a", "l", ".."], ["b", "f", 1, X]],
    [["a", "l", "b"], ["a/c", "f", 1, X]],
    [["a", "f", 1, X], ["a/c", "f", 1, X]],
    [["a", "f", 1, X], ["a", "x", 1, X]],
    [["a", "f", 1, X], ["b", "f", 2, X]],
    [["a", "f", -1, X]],
    [["a", "f", 1 << 50, X]],
    [["a", "f", 1.0, X]],
    [["a", "f", True, X]],
    [["a", "f", "1", X]],
    [["a", "d", 1, X]],
    [["a", "f", 1, X[:-1]]],
    [["a", "f", 1, X[:-2] + "/x"]],
    [["a", "f", 1, X.upper()]],
    [["a", "f", 1]],
    [["a", "l"]],
    [["a"]],
    [[]],
    [{}],
    [None],
    [[1, "f", 1, X]],
    [[None, "l", "b"]],
    [["a", "l", None]],
    [["a", "f", 1, None]],
]


def document(rows: Any, **changes: Any) -> bytes:
    return json.dumps({"version": 1, "entries": rows, **changes}).encode()


def offered(node: Node, data: bytes) -> Any:
    return offer_snapshot(node.layout, digest_of(data), zlib.compress(data))


@pytest.mark.parametrize("rows", HOSTILE_ROWS, ids=str)
def test_the_node_refuses_hostile_manifests(node: Node, tmp_path: Path, rows: Any) -> None:
    """Paths that leave, contradict one another or are no paths write nothing anywhere."""
    before = sorted(p for p in tmp_path.rglob("*") if "locks" not in p.parts)

    with pytest.raises(AgentFault) as caught:
        offered(node, document(rows))

    assert caught.value.id == theirs.INVALID
    assert sorted(p for p in tmp_path.rglob("*") if "locks" not in p.parts) == before


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        document({}),
        document([], version=2),
        b'{"version":1}',
        b"[" * 100_000,
        b'{"version":1,"entries":' + b"9" * 10_000 + b"}",
    ],
    ids=lambda data: repr(data[:20]),
)
def test_the_node_refuses_what_is_no_manifest(node: Node, data: bytes) -> None:
    """Foreign, broken and deeply nested documents are answered with an error."""
    with pytest.raises(AgentFault):
        offered(node, data)


def test_the_node_refuses_another_digest_and_bombs(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes must have the announced digest, and a bounded size when expanded."""
    data = document([["a", "f", 1, X]])
    monkeypatch.setattr(theirs, "MAX_MANIFEST_BYTES", 1000)
    for packed in (zlib.compress(data + b" "), data, zlib.compress(data)[:-2]):
        with pytest.raises(AgentFault):
            offer_snapshot(node.layout, digest_of(data), packed)
    bomb = bytes(1001)
    with pytest.raises(AgentFault):
        offer_snapshot(node.layout, digest_of(bomb), zlib.compress(bomb))


def test_the_node_bounds_the_number_of_entries(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """More entries than allowed are refused before any of them is looked at."""
    monkeypatch.setattr(theirs, "MAX_ENTRIES", 2)

    with pytest.raises(AgentFault, match="more than 2"):
        offered(node, document([["a", "f", 1, X], ["b", "f", 1, X], [None]]))


def test_both_sides_have_the_same_rules() -> None:
    """What one side sends, the other accepts; the copies of the rules have not drifted apart."""
    for path in UNSAFE_PATHS + SAFE_PATHS:
        assert bool(core.path_fault(path)) == bool(theirs.path_fault(path)), path
    for path, target in UNSAFE_TARGETS + SAFE_TARGETS:
        assert bool(core.target_fault(path, target)) == bool(theirs.target_fault(path, target))
    for name in "MAX_ENTRIES MAX_PATH_BYTES MAX_PART_BYTES MAX_TOTAL_BYTES DIGEST_BYTES".split():
        assert getattr(core, name) == getattr(theirs, name)
    assert pack.PIECE.format == PIECE.format


@given(st.text(max_size=20), st.text(alphabet="./ab\n", max_size=12))
def test_both_sides_judge_any_text_alike(path: str, target: str) -> None:
    """The same for arbitrary paths and targets."""
    assert bool(core.path_fault(path)) == bool(theirs.path_fault(path))
    assert bool(core.target_fault(path, target)) == bool(theirs.target_fault(path, target))


class Liar:
    """A channel whose node answers what it likes."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self.node = "n1"
        self.requests = 0
        self._answers = answers

    async def request(
        self, op: str, arguments: Any = None, *, timeout_s: float, payload: bytes | Payload = b""
    ) -> Reply:
        answer = self._answers[min(self.requests, len(self._answers) - 1)]
        self.requests += 1
        return Reply(fields={"digest": (arguments or {})["digest"], **answer})


def bitmap(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    folder = write_tree(tmp_path / "code", {f"f{i}": b"%d" % i for i in range(10)})
    return take_snapshot([TreePart(source=folder)], tmp_path / "cache")


@pytest.mark.processes
@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"have": "yes"},
        {"have": 1},
        {"have": False, "base": 7},
        {"have": False, "base": "../../etc"},
        {"have": False, "base": "0" * 40},
        {"have": False, "missing": None},
        {"have": False, "missing": 7},
        {"have": False, "missing": "###"},
        {"have": False, "missing": "AAAA"},
        {"have": False, "missing": bitmap(b"")},
        {"have": False, "missing": bitmap(b"\1")},
        {"have": False, "missing": bitmap(b"\0\0")},
        {"have": False, "missing": bitmap(b"\0\4")},
        {"have": False, "missing": bitmap(b"\1\0\0")},
        {"have": False, "missing": bitmap(bytes(100_000_000))},
        {"have": True, "digest": "0" * 40},
        {"have": True, "digest": None},
    ],
    ids=lambda answer: str(answer)[:60],
)
async def test_senseless_answers_end_the_sync(snapshot: Snapshot, answer: dict[str, Any]) -> None:
    """A node that answers nonsense never counts as having the code."""
    with pytest.raises(PreflightError) as caught:
        await push_snapshot(Liar(answer), snapshot, timeout_s=scaled(20))

    assert caught.value.id == "OR-SYNC-006"
    assert caught.value.where == "n1"


@pytest.mark.processes
async def test_a_node_that_keeps_nothing_is_given_up(snapshot: Snapshot) -> None:
    """A node that asks for the same content for ever is asked a bounded number of times."""
    liar = Liar({"have": False, "complete": False, "missing": bitmap(b"\1\0")})

    with pytest.raises(PreflightError) as caught:
        await push_snapshot(liar, snapshot, timeout_s=scaled(20))

    assert caught.value.id == "OR-SYNC-007"
    assert liar.requests < 10


def test_a_link_in_the_work_directory_is_not_followed(node: Node, tmp_path: Path) -> None:
    """A folder of a snapshot that somebody replaced by a link is an error, not a way out."""
    manifest = core.Manifest.of([core.FileEntry("d/a", 1, False, X)])
    root = node.take(manifest, {"d/a": b"x"})
    outside = write_tree(tmp_path / "outside", {"keep": b"k"})
    (root / "d" / "a").unlink()
    (root / "d").rmdir()
    (root / "d").symlink_to(outside)

    with pytest.raises(AgentFault, match="no folder"):
        node.has(manifest, check=True)

    assert [path.name for path in outside.iterdir()] == ["keep"]
