"""Nodes on which the agent cannot begin say why, at whatever step it turns out."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.agent_client.channel import AgentChannel, AgentError
from orchestrator.adapters.transport.local_process import LocalTransport
from orchestrator.adapters.transport.transport import Process
from orchestrator.core.base.command import Command
from orchestrator.core.base.errors import PreflightError
from orchestrator.core.model.inventory import NodeSpec
from tests.contracts.agent.attempts import Attempt, everything_below, shell
from tests.contracts.agent.conftest import MakeAttempt, OpenChannel
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

# In a mount namespace of its own: nobody else sees the small disk, and it goes with the process.
ON_A_SMALL_DISK = (
    'mount --make-rprivate / && mount -t tmpfs -o "$1" small "$2" && '
    'if [ -n "$3" ]; then mkdir -p "$2/node" && cp -r "$3" "$2/node/agents"; fi; '
    '[ -z "$4" ] || head -c 100M /dev/zero > "$2/filler" 2> /dev/null; shift 4; exec "$@"'
)


class SmallDisk(LocalTransport):
    """Starts the agent where ``workdir`` is a file system with the mount ``options``."""

    def __init__(self, workdir: Path, options: str, agents: Path | None, full: bool) -> None:
        super().__init__("n1")
        there = str(agents or "")
        self._prefix = (options, str(workdir), there, "full" if full else "")

    async def start(self, command: Command, *, timeout_s: float, has_input: bool = True) -> Process:
        unshare = ("unshare", "--mount", "sh", "-c", ON_A_SMALL_DISK, "small", *self._prefix)
        argv = (*unshare, *command.argv)
        return await super().start(
            replace(command, argv=argv), timeout_s=timeout_s, has_input=has_input
        )


async def refusal(spec: NodeSpec, transport: LocalTransport) -> PreflightError:
    try:
        with pytest.raises(PreflightError) as refused:
            await AgentChannel.open(transport, spec, timeout_s=scaled(20))
    finally:
        await transport.close()
    assert refused.value.id == "OR-AGENT-START"
    return refused.value


@pytest.fixture
async def unpacked(open_channel: OpenChannel, workdir: Path, tmp_path: Path) -> Path:
    """What an agent leaves when it is unpacked, as it was before it first ran."""
    await (await open_channel()).close()
    ignore = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(workdir / "node" / "agents", tmp_path / "agents", ignore=ignore))


@pytest.mark.skipif(os.geteuid() != 0, reason="hardware: only root can mount a small disk")
@pytest.mark.parametrize(
    "step,what",
    [("begin", "small/node"), ("unpack", ""), ("write", ""), ("open", "small/node/snapshots")],
)
async def test_a_node_without_space_says_so(
    unpacked: Path, spec: NodeSpec, tmp_path: Path, step: str, what: str
) -> None:
    """Before, while and after the agent is unpacked; and what to do is told."""
    place = tmp_path / "small"
    place.mkdir()
    entries = len(everything_below(unpacked))
    disk = {
        "begin": SmallDisk(place, "nr_inodes=1,size=1m", None, False),
        "unpack": SmallDisk(place, "size=64k", None, False),
        "write": SmallDisk(place, "size=64k", None, True),
        "open": SmallDisk(place, f"nr_inodes={entries + 3},size=8m", unpacked, False),
    }

    error = await refusal(replace(spec, workdir=str(place)), disk[step])

    assert error.why.startswith("no space is left for ")
    assert f"{what} (" in error.why
    assert "free some space on n1" in error.remedy


async def test_what_the_agent_finds_unsafe_is_told(
    open_channel: OpenChannel, spec: NodeSpec, tmp_path: Path
) -> None:
    """It was unpacked before; now one of its directories leads elsewhere."""
    place = tmp_path / "work"
    (place / "node").mkdir(parents=True)
    (place / "node" / "snapshots").symlink_to(tmp_path)

    error = await refusal(replace(spec, workdir=str(place)), LocalTransport("n1"))

    assert "node/snapshots is not a plain directory" in error.why


class FewDescriptors(LocalTransport):
    """Starts the agent as a login with a low ``ulimit -n`` does."""

    async def start(self, command: Command, *, timeout_s: float, has_input: bool = True) -> Process:
        argv = ("sh", "-c", 'ulimit -n 40; exec "$@"', "few", *command.argv)
        return await super().start(
            replace(command, argv=argv), timeout_s=timeout_s, has_input=has_input
        )


async def test_few_descriptors_are_enough_for_a_launch(attempt: Attempt, spec: NodeSpec) -> None:
    transport = FewDescriptors("n1")
    attempt.channel = await AgentChannel.open(transport, spec, timeout_s=scaled(20))
    try:
        await attempt.launch(shell(0, "ulimit -n"))
        await attempt.watch()
        await attempt.to_end()
    finally:
        await attempt.channel.close()
        await transport.close()
    assert attempt.files["rank-0.out"] == b"40\n"


async def test_an_attempt_that_never_began_has_no_supervisor(make_attempt: MakeAttempt) -> None:
    """A stop says so: nothing will conclude. The next launch begins as if nothing had been."""
    attempt = await make_attempt(watched=False)
    in_the_way = attempt.root / "supervisor.log"
    in_the_way.mkdir(parents=True)
    with pytest.raises(AgentError, match="Is a directory"):
        await attempt.launch(shell(0, "exit 0"))

    assert await attempt.ask("stop", grace_s=1.0) == {"supervisor": "none"}

    in_the_way.rmdir()
    (attempt.root / "stop").unlink()
    await attempt.launch(shell(0, "exit 0"))
    await attempt.watch()
    assert (await attempt.to_end())["why"] == "finished"
