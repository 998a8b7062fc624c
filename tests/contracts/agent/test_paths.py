"""No name from the wire leads out of the work directory, and nobody else can lead us astray."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.errors import PreflightError
from orchestrator.core.inventory import NodeSpec
from orchestrator.edges.agent.channel import AgentChannel, AgentError
from orchestrator.edges.agent.node.bootstrap import (
    UnsafeDirectory,
    private_directory,
    resolve_workdir,
)
from orchestrator.edges.transport.local import LocalTransport
from tests.contracts.agent.attempts import Attempt, shell

STRANGER = 12345
UNSAFE_NAMES = [
    "",
    ".",
    "..",
    "../other",
    "/etc",
    "a/b",
    "a\\b\0c",
    "-rf",
    ".hidden",
    "x" * 129,
    "new\nline",
    "trailing\n",
    "ünïcode",
    7,
    None,
    ["a"],
    {"a": 1},
]
NAMED = ["launch", "watch", "renew", "stop", "sweep", "clean", "outputs", "fetch"]
COMPLETE = {
    "run": "r",
    "node": "n",
    "attempt": 1,
    "epoch": 1,
    "lease_s": 5.0,
    "grace_s": 1.0,
    "processes": [{"label": "launcher", "rank": None, "argv": ["true"], "env": {}}],
    "path": "file",
    "offset": 0,
    "length": 10,
}


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A file beside the work directory that nobody may reach."""
    path = tmp_path / "secret"
    path.write_text("canary")
    return path


def everything_below(path: Path) -> set[str]:
    return {str(found) for found in path.rglob("*") if "__pycache__" not in found.parts}


@pytest.mark.parametrize("op", NAMED)
@pytest.mark.parametrize("key", ["run", "node"])
async def test_names_are_single_safe_words(
    channel: AgentChannel, tmp_path: Path, op: str, key: str
) -> None:
    """Every operation that takes a name refuses everything else, before it touches the disk."""
    before = everything_below(tmp_path)

    for name in UNSAFE_NAMES:
        with pytest.raises(AgentError) as refused:
            await channel.request(op, {**COMPLETE, key: name}, timeout_s=10)
        assert refused.value.id == "OR-AGENT-REQUEST", name

    assert everything_below(tmp_path) == before


@pytest.mark.parametrize("attempt", [-1, 10_001, "1", 1.0, True, None, "../1", [1]])
async def test_attempts_are_small_numbers(channel: AgentChannel, attempt: object) -> None:
    for op in ("launch", "watch", "renew", "stop", "outputs", "fetch"):
        with pytest.raises(AgentError) as refused:
            await channel.request(op, {**COMPLETE, "attempt": attempt}, timeout_s=10)
        assert refused.value.id == "OR-AGENT-REQUEST"


@pytest.mark.parametrize("digest", ["..", "../../x", "/etc/passwd", "g" * 64, "ab", "", "A" * 64])
async def test_digests_are_hexadecimal(channel: AgentChannel, digest: str) -> None:
    requests: list[tuple[str, dict[str, object]]] = [
        ("offer", {}),
        ("push", {"blobs": []}),
        ("environment", {"base": "python3"}),
    ]
    for op, fields in requests:
        with pytest.raises(AgentError):
            await channel.request(op, {"digest": digest, **fields}, timeout_s=10)
    with pytest.raises(AgentError):
        await channel.request("launch", {**COMPLETE, "snapshot": digest}, timeout_s=10)


@pytest.mark.parametrize(
    "change",
    [
        {"processes": []},
        {"processes": "x"},
        {"processes": [{"label": "../x", "argv": ["true"]}]},
        {"processes": [{"label": "launcher", "argv": []}]},
        {"processes": [{"label": "launcher", "argv": ["a\0b"]}]},
        {"processes": [{"label": "launcher", "argv": ["true"], "env": {"A=B": "c"}}]},
        {"processes": [{"label": "launcher", "argv": ["true"], "env": {"A": 1}}]},
        {"processes": [{"label": "rank-1", "rank": 2, "argv": ["true"]}]},
        {"processes": [{"label": "a", "argv": ["true"]}] * 2},
        {"lease_s": 0},
        {"lease_s": "long"},
        {"grace_s": -1},
        {"epoch": -1},
        {"epoch": True},
        {"locks": ["../x"]},
        {"cwd": 5},
    ],
)
async def test_a_launch_is_checked_whole(channel: AgentChannel, change: dict[str, object]) -> None:
    """What is wrong with a request is found before anything starts."""
    with pytest.raises(AgentError) as refused:
        await channel.request("launch", {**COMPLETE, **change}, timeout_s=10)

    assert refused.value.id == "OR-AGENT-REQUEST"


async def test_outputs_stay_inside(attempt: Attempt, outside: Path) -> None:
    """Links, pipes and directories that are links are listed as skipped, and never fetched."""
    script = (
        f"cd {{output}}; ln -s {outside} link; ln -s {outside.parent} up; mkfifo pipe; "
        "mkdir -p deep/er; echo fine > deep/er/file; ln {attempt}/logs/rank-0.out hard"
    )
    await attempt.launch(shell(0, script))
    await attempt.to_end()

    reply = await attempt.channel.request("outputs", attempt.names, timeout_s=10)

    listed = json.loads(reply.payload)
    assert [f["path"] for f in listed["files"]] == ["deep/er/file", "hard"]
    assert {s["path"]: s["why"] for s in listed["skipped"]} == {
        "link": "a link",
        "up": "a link",
        "pipe": "not a regular file",
    }
    paths = [
        "link",
        "up/secret",
        "pipe",
        "../logs/rank-0.out",
        "/etc/passwd",
        "deep/er",
        "",
        "a\0b",
    ]
    for path in [*paths, "deep//er/file", "./deep/er/file", "deep/er/../er/file", "x" * 2000]:
        request = {**attempt.names, "path": path, "offset": 0, "length": 100}
        with pytest.raises(AgentError):
            await attempt.channel.request("fetch", request, timeout_s=10)


async def open_at(workdir: Path | str, spec: NodeSpec) -> None:
    transport = LocalTransport("n1")
    try:
        moved = replace(spec, workdir=str(workdir))
        channel = await AgentChannel.open(transport, moved, timeout_s=20)
        await channel.close()
    finally:
        await transport.close()


def link_of_a_stranger(path: Path) -> None:
    (path.parent / "theirs").mkdir()
    path.symlink_to(path.parent / "theirs")
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def directory_of_a_stranger(path: Path) -> None:
    path.mkdir()
    os.chown(path, STRANGER, STRANGER)


def node_of_a_stranger(path: Path) -> None:
    (path / "node").mkdir(parents=True)
    os.chown(path / "node", STRANGER, STRANGER)


def node_is_a_link(path: Path) -> None:
    path.mkdir()
    (path.parent / "elsewhere").mkdir()
    (path / "node").symlink_to(path.parent / "elsewhere")


def agents_is_a_link(path: Path) -> None:
    (path / "node").mkdir(parents=True)
    (path.parent / "elsewhere").mkdir()
    (path / "node" / "agents").symlink_to(path.parent / "elsewhere")


def link_of_our_own(path: Path) -> None:
    (path.parent / "big-disk").mkdir()
    path.symlink_to(path.parent / "big-disk")


def node_for_reading(path: Path) -> None:
    (path / "node").mkdir(0o755, parents=True)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def parent_for_everybody(path: Path) -> None:
    path.parent.chmod(0o777)


@pytest.mark.skipif(os.geteuid() != 0, reason="hardware: only root can make a stranger's files")
@pytest.mark.parametrize(
    "prepare",
    [
        link_of_a_stranger,
        directory_of_a_stranger,
        node_of_a_stranger,
        node_is_a_link,
        agents_is_a_link,
        parent_for_everybody,
    ],
)
async def test_an_unsafe_workdir_is_refused(
    spec: NodeSpec, workdir: Path, prepare: Callable[[Path], None]
) -> None:
    """Nothing is written where somebody else could read or replace it."""
    prepare(workdir)

    with pytest.raises(PreflightError) as refused:
        await open_at(workdir, spec)

    assert refused.value.id == "OR-AGENT-START"
    assert not list(workdir.parent.rglob("*.py"))


async def test_a_link_of_our_own_is_followed(spec: NodeSpec, tmp_path: Path) -> None:
    """A home that is too small may hold a link to a bigger disk."""
    link_of_our_own(tmp_path / "link")

    await open_at(tmp_path / "link", spec)

    assert f"{tmp_path}/big-disk/node/agents" in everything_below(tmp_path)


async def test_what_is_ours_is_made_private(spec: NodeSpec, workdir: Path) -> None:
    node_for_reading(workdir)

    await open_at(workdir, spec)

    assert mode_of(workdir / "node") == 0o700


async def test_a_workdir_that_cannot_be_made_is_told(spec: NodeSpec) -> None:
    with pytest.raises(PreflightError) as refused:
        await open_at("/proc/no/such/place", spec)

    assert refused.value.id == "OR-AGENT-START"


def test_home_is_the_start_of_relative_paths(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert resolve_workdir("~/a") == resolve_workdir("a") == str(tmp_path / "a")


def test_a_file_in_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UnsafeDirectory):
        private_directory(str(tmp_path / "file"))
