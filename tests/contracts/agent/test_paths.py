"""Where the agent puts its things: private, ours, and out of everybody else's reach."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.core.errors import PreflightError
from orchestrator.core.inventory import NodeSpec
from orchestrator.edges.agent.channel import AgentChannel
from orchestrator.edges.agent.node.bootstrap import (
    UnsafeDirectory,
    private_directory,
    resolve_workdir,
)
from orchestrator.edges.transport.local import LocalTransport
from tests.contracts.agent.attempts import everything_below

STRANGER = 12345


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return tmp_path / "work"


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
