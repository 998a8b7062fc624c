"""Where the agent puts its things: private, ours, and out of everybody else's reach."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.agent_client.channel import AgentChannel
from orchestrator.adapters.transport.local_process import LocalTransport
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.node_agent.base.agent_errors import AgentFault
from orchestrator.node_agent.base.bootstrap import (
    UnsafeDirectory,
    private_directory,
    resolve_workdir,
)
from orchestrator.node_agent.base.login import expand_path
from orchestrator.node_agent.stage0 import expand_workdir, find_agent, whole_mark
from tests.contracts.agent.attempts import everything_below
from tests.time_limits import scaled

STRANGER = 12345


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return tmp_path / "work"


async def open_at(workdir: Path | str, spec: NodeSpec) -> None:
    transport = LocalTransport("n1")
    try:
        moved = replace(spec, workdir=str(workdir))
        channel = await AgentChannel.open(transport, moved, timeout_s=scaled(20))
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


@pytest.mark.processes
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


@pytest.mark.processes
async def test_a_link_of_our_own_is_followed(spec: NodeSpec, tmp_path: Path) -> None:
    """A home that is too small may hold a link to a bigger disk."""
    link_of_our_own(tmp_path / "link")

    await open_at(tmp_path / "link", spec)

    assert f"{tmp_path}/big-disk/node/agents" in everything_below(tmp_path)


@pytest.mark.processes
async def test_what_is_ours_is_made_private(spec: NodeSpec, workdir: Path) -> None:
    node_for_reading(workdir)

    await open_at(workdir, spec)

    assert mode_of(workdir / "node") == 0o700


@pytest.mark.processes
async def test_a_workdir_that_cannot_be_made_is_told(spec: NodeSpec) -> None:
    with pytest.raises(PreflightError) as refused:
        await open_at("/proc/no/such/place", spec)

    assert refused.value.id == "OR-AGENT-START"


def test_home_is_the_start_of_relative_paths(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    assert resolve_workdir("~/a") == resolve_workdir("a") == str(tmp_path / "a")


@pytest.mark.processes
@pytest.mark.parametrize(
    "text", ["$LAB_AREA/w", "${LAB_AREA}/w", "$LAB_AREA/$LAB_NAME-w", "/$LAB_EMPTY/w"]
)
async def test_variables_in_a_workdir_are_those_of_the_node(
    spec: NodeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Expanded where commands run; one that is not set there is named, and nothing is made."""
    monkeypatch.setenv("LAB_AREA", str(tmp_path / "area"))
    monkeypatch.setenv("LAB_NAME", "me")
    monkeypatch.setenv("LAB_EMPTY", "")
    places = {
        "$LAB_AREA/w": "area/w",
        "${LAB_AREA}/w": "area/w",
        "$LAB_AREA/$LAB_NAME-w": "area/me-w",
    }

    if text in places:
        await open_at(text, spec)
        await open_at(text, spec)  # the agent is there: the quick way
        assert (tmp_path / places[text] / "node").is_dir()
    else:
        with pytest.raises(PreflightError, match="could not be started") as refused:
            await open_at(text, spec)
        assert "$LAB_EMPTY is not set where commands run" in refused.value.why
    assert not [path for path in everything_below(tmp_path) if "$" in path]


def test_the_user_of_a_workdir_is_known_without_a_variable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Some logins set neither USER nor LOGNAME."""
    monkeypatch.delenv("USER", raising=False)
    name = pwd.getpwuid(os.geteuid()).pw_name

    assert expand_workdir("/scratch/$USER/x") == f"/scratch/{name}/x"
    assert expand_path("/scratch/${USER}/x") == f"/scratch/{name}/x"


@pytest.mark.parametrize("text", ["$NO_SUCH_THING/x", "${NO_SUCH_THING}", "/a/$NO_SUCH_THING"])
def test_a_variable_that_is_not_set_is_named(text: str) -> None:
    """In paths of programs as in the workdir; a value that is no absolute path is no workdir."""
    with pytest.raises(ValueError, match="NO_SUCH_THING is not set"):
        expand_workdir(text)
    with pytest.raises(AgentFault, match="NO_SUCH_THING is not set"):
        expand_path(text)
    with pytest.raises(ValueError, match="not an absolute path"):
        expand_workdir("$USER/x")


def test_a_file_in_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(UnsafeDirectory):
        private_directory(str(tmp_path / "file"))


DIGEST = "0123456789abcdef" + "0" * 48


def agent_in(workdir: Path) -> Path:
    """A place for an agent as we leave it."""
    agent = workdir / "node" / "agents" / DIGEST[:16]
    agent.mkdir(parents=True, mode=0o700)
    for folder in (workdir / "node", agent.parent):
        folder.chmod(0o700)
    Path(whole_mark(str(agent))).touch()
    return agent


def test_the_first_look_finds_an_agent_that_nobody_else_can_touch(tmp_path: Path) -> None:
    agent = agent_in(tmp_path / "work")
    assert find_agent(str(tmp_path / "work"), DIGEST) == (str(tmp_path / "work"), str(agent))
    Path(whole_mark(str(agent))).unlink()
    assert find_agent(str(tmp_path / "work"), DIGEST) is None, "it is from before a power cut"


def files_of(agent: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in (agent / "orchestrator").rglob("*.py")}


def cut_power_while_it_was_written(agent: Path) -> None:
    """Files of the last boot may be empty, or missing."""
    Path(whole_mark(str(agent))).unlink()
    (agent / "orchestrator/node_agent/main.py").write_bytes(b"")
    (agent / "orchestrator/node_agent/stage0.py").unlink()


@pytest.mark.processes
async def test_what_a_power_cut_left_of_an_agent_is_made_whole(
    workdir: Path, spec: NodeSpec
) -> None:
    """Others may read the whole ones meanwhile: they stay."""
    await open_at(workdir, spec)
    (agent,) = (workdir / "node" / "agents").iterdir()
    whole, sound = files_of(agent), agent / "orchestrator/node_agent/operations.py"
    kept = sound.stat().st_ino
    cut_power_while_it_was_written(agent)

    await open_at(workdir, spec)

    assert files_of(agent) == whole
    assert sound.stat().st_ino == kept
    assert Path(whole_mark(str(agent))) in agent.iterdir()


@pytest.mark.parametrize("odd", ["node", "node/agents", f"node/agents/{DIGEST[:16]}"])
@pytest.mark.parametrize("mode", [0o750, 0o702, 0o755])
def test_the_first_look_leaves_odd_modes_to_the_careful_one(
    odd: str, mode: int, tmp_path: Path
) -> None:
    agent_in(tmp_path)
    (tmp_path / odd).chmod(mode)
    assert find_agent(str(tmp_path), DIGEST) is None


def test_the_first_look_leaves_links_and_open_directories_to_the_careful_one(
    tmp_path: Path,
) -> None:
    """A link in place of the agent; and a directory above in which anybody may put another."""
    agent = agent_in(tmp_path / "open" / "work")
    (tmp_path / "open").chmod(0o777)
    assert find_agent(str(tmp_path / "open" / "work"), DIGEST) is None
    (tmp_path / "open").chmod(0o755)
    assert find_agent(str(tmp_path / "open" / "work"), DIGEST) is not None
    agent.rename(tmp_path / "elsewhere")
    agent.symlink_to(tmp_path / "elsewhere")
    assert find_agent(str(tmp_path / "open" / "work"), DIGEST) is None
