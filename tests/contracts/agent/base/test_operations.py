"""The other operations: reachability, environments, outputs, listing, cleaning and pruning."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import socket
import sys
import zipfile
from pathlib import Path

import pytest

from orchestrator.adapters.agent_client.channel import AgentChannel, AgentError
from tests.contracts.agent.attempts import Attempt, eventually, exists, rank, shell
from tests.contracts.agent.conftest import MakeAttempt, OpenChannel
from tests.time_limits import assert_within, scaled

pytestmark = pytest.mark.processes


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return tmp_path / "work"


async def test_a_listening_port_is_reached_until_it_is_released(channel: AgentChannel) -> None:
    """The own address is told; afterwards it is refused, and free for whoever comes next."""
    port = (await channel.request("listen", timeout_s=scaled(5))).fields["port"]
    request = {"targets": [["127.0.0.1", port], ["127.0.0.1", port]], "timeout_s": 2.0}

    first = (await channel.request("dial", request, timeout_s=scaled(10))).fields["results"]
    await channel.request("release", {"port": port}, timeout_s=scaled(5))
    second = (await channel.request("dial", request, timeout_s=scaled(10))).fields["results"]

    assert first[0]["ok"] is True
    assert first[0]["local"] == "127.0.0.1"
    assert first[0]["ms"] >= 0
    assert_within("a connection", first[0]["ms"] / 1000, 2)
    assert [r["ok"] for r in second] == [False, False]
    with socket.socket() as free:
        free.bind(("0.0.0.0", port))


async def test_dialling_takes_odd_targets(channel: AgentChannel) -> None:
    """Names that do not resolve are errors of that target; malformed lists are refused."""
    request = {"targets": [["no such host.invalid", 1], ["x" * 255, 1]], "timeout_s": 1.0}
    results = (await channel.request("dial", request, timeout_s=scaled(10))).fields["results"]

    assert [r["ok"] for r in results] == [False, False]
    for targets in ("x", [1], [["a"]], [["a", 0]], [["a", 70000]], [["a", True]], [["", 1]]):
        with pytest.raises(AgentError):
            await channel.request(
                "dial", {"targets": targets, "timeout_s": 1.0}, timeout_s=scaled(5)
            )
    with pytest.raises(AgentError):
        await channel.request("release", {"port": 1}, timeout_s=scaled(5))


async def test_outputs_are_listed_and_fetched(attempt: Attempt) -> None:
    """Digests and sizes are right, and pieces put together are the file."""
    content = os.urandom(300_000)
    script = "mkdir -p {output}/sub; cp {attempt}/source {output}/sub/data.bin; : > {output}/empty"
    await attempt.launch(
        shell(0, f"while [ ! -s {{attempt}}/source ]; do sleep 0.02; done; {script}")
    )
    (attempt.root / "partial").write_bytes(content)
    (attempt.root / "partial").rename(attempt.root / "source")
    await attempt.to_end()

    reply = await attempt.channel.request("outputs", attempt.names, timeout_s=scaled(10))
    pieces = b""
    while True:
        place = {"path": "sub/data.bin", "offset": len(pieces), "length": 65_536}
        piece = await attempt.channel.request(
            "fetch", {**attempt.names, **place}, timeout_s=scaled(5)
        )
        if not piece.payload:
            break
        pieces += piece.payload

    listed = {f["path"]: f for f in json.loads(reply.payload)["files"]}
    digest = hashlib.sha256(content).hexdigest()
    assert listed["sub/data.bin"] == {
        "path": "sub/data.bin",
        "bytes": 300_000,
        "sha256": digest,
    }
    assert listed["empty"]["bytes"] == 0
    assert pieces == content
    assert piece.fields["size"] == 300_000


async def test_outputs_of_an_attempt_that_never_was_are_empty(attempt: Attempt) -> None:
    reply = await attempt.channel.request("outputs", attempt.names, timeout_s=scaled(5))

    nothing = {"files": [], "links": [], "folders": [], "skipped": []}
    assert json.loads(reply.payload) == nothing


async def test_runs_are_listed_and_cleaned(make_attempt: MakeAttempt) -> None:
    """A living run is listed as alive and not removed; a concluded one is removed whole."""
    attempt = await make_attempt()
    names = {"run": attempt.names["run"], "node": "n1"}
    await attempt.launch(shell(0, "exec sleep 300"))

    with pytest.raises(AgentError) as refused:
        await attempt.channel.request("clean", names, timeout_s=scaled(10))
    listed = (await attempt.channel.request("runs", timeout_s=scaled(5))).fields["runs"]
    other = (await attempt.channel.request("runs", {"run": "none"}, timeout_s=scaled(5))).fields[
        "runs"
    ]
    await attempt.ask("sweep")
    await attempt.to_end()
    ended = (await attempt.channel.request("runs", timeout_s=scaled(5))).fields["runs"]
    removed = await attempt.channel.request("clean", names, timeout_s=scaled(10))
    again = await attempt.channel.request("clean", names, timeout_s=scaled(10))

    assert refused.value.id == "OR-AGENT-BUSY"
    assert listed == [{**names, "attempts": [{"attempt": 1, "supervisor": "alive"}]}]
    assert other == []
    assert ended[0]["attempts"][0]["supervisor"] == "concluded"
    assert [removed.fields["removed"], again.fields["removed"]] == [True, False]
    assert not attempt.root.parent.parent.exists()


@pytest.mark.parametrize("op", ["renew", "stop"])
async def test_an_unknown_run_is_absent(attempt: Attempt, op: str) -> None:
    with pytest.raises(AgentError) as refused:
        await attempt.ask(op, epoch=1, lease_s=5.0, grace_s=1.0)

    assert refused.value.id == "OR-AGENT-ABSENT"


async def test_sweeping_where_nothing_ran_is_clean(attempt: Attempt) -> None:
    assert await attempt.ask("sweep") == {
        "scans": 2,
        "killed": [],
        "survivors": [],
        "clean": True,
        "gpu_drained": None,
    }


async def test_pruning_spares_what_is_new_or_in_use(channel: AgentChannel, workdir: Path) -> None:
    """Old snapshots, environments and agents go; young ones and this agent stay."""
    node = workdir / "node"
    old, new = "a" * 40, "b" * 40
    for kind in ("snapshots", "environments", "agents"):
        for name in (old, new):
            (node / kind / name / "sub").mkdir(parents=True)
    (node / "snapshots" / old / "sub" / "weights").write_bytes(b"w" * 100_000)
    for kind in ("snapshots", "environments", "agents"):
        os.utime(node / kind / old, (1, 1))
    own = node / "agents" / channel.hello.agent
    os.utime(own, (1, 1))

    request = {"older_than_s": 3600.0}
    asked = await channel.request("prune", {**request, "dry_run": True}, timeout_s=scaled(10))
    assert (node / "snapshots" / old).exists()
    reply = await channel.request("prune", request, timeout_s=scaled(10))

    caches = reply.fields["caches"]
    assert caches == asked.fields["caches"]
    assert {kind: cache["entries"] for kind, cache in caches.items()} == {
        "snapshots": 1,
        "environments": 1,
        "agents": 1,
    }
    assert 100_000 <= caches["snapshots"]["bytes"] < 200_000
    assert own.is_dir()
    assert (node / "snapshots" / new).is_dir()
    assert not (node / "snapshots" / old).exists()


async def test_pruning_spares_the_environment_of_a_living_run(attempt: Attempt) -> None:
    """However old it is: an interpreter must not vanish under its ranks."""
    environments = attempt.root.parents[3] / "environments"
    for name in ("a" * 64, "b" * 64):
        (environments / name / "venv" / "bin").mkdir(parents=True)
        (environments / name / "venv" / "bin" / "python").symlink_to("/bin/sleep")
        os.utime(environments / name, (1, 1))
    interpreter = str(environments / ("a" * 64) / "venv" / "bin" / "python")
    await attempt.launch(rank(0, interpreter, "300"))

    reply = await attempt.channel.request("prune", {"older_than_s": 60.0}, timeout_s=scaled(10))

    assert reply.fields["caches"]["environments"]["entries"] == 1
    assert [path.name for path in environments.iterdir()] == ["a" * 64]


async def test_an_environment_is_built_once(open_channel: OpenChannel) -> None:
    """Two who ask at once wait for one build; both get an interpreter that works."""
    channels = [await open_channel() for _ in range(2)]
    request = {"digest": "e" * 64, "base": sys.executable}
    asked = [
        c.request("environment", request, payload=b"\n", timeout_s=scaled(90)) for c in channels
    ]

    replies = await asyncio.gather(*asked)

    assert sorted(r.fields["built"] for r in replies) == [False, True]
    (interpreter,) = {r.fields["interpreter"] for r in replies}
    process = await asyncio.create_subprocess_exec(interpreter, "-c", "import pip")
    assert await process.wait() == 0


async def test_what_ranks_import_is_compiled_and_nothing_else(
    channel: AgentChannel, tmp_path: Path
) -> None:
    """To compile all of torch takes longer than to install it. A module that is missing, or fails,
    is for the ranks to name.
    """
    wheel = _wheel(tmp_path, {"used": "", "unused": "", "failing": "raise OSError"})
    request = {"digest": "d" * 64, "base": sys.executable}
    request |= {"modules": ["sample.failing", "no-module", "missing", "sample.used"]}

    reply = await channel.request(
        "environment", request, payload=f"{wheel}\n".encode(), timeout_s=90
    )

    assert reply.fields["built"] is True
    venv = Path(reply.fields["interpreter"]).parents[1]
    (package,) = venv.glob("lib/python3*/site-packages/sample")
    compiled = {path.name.partition(".")[0] for path in package.glob("__pycache__/*.pyc")}
    assert compiled == {"__init__", "used", "failing"}


def _wheel(folder: Path, modules: dict[str, str]) -> Path:
    """A package `sample` of these modules and their texts."""
    path = folder / "sample-1-py3-none-any.whl"
    info = "sample-1.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {"__init__": "", **modules}.items():
            wheel.writestr(f"sample/{name}.py", text)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: sample\nVersion: 1\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


async def test_an_environment_that_cannot_be_built_says_why(channel: AgentChannel) -> None:
    """The builder's last lines are in the error, and the next attempt starts afresh."""
    for base in ("/no/such/python", "false"):
        request = {"digest": "f" * 64, "base": base}
        with pytest.raises(AgentError) as refused:
            await channel.request("environment", request, payload=b"\n", timeout_s=scaled(30))
        assert refused.value.id == "OR-AGENT-ENVIRONMENT"


@pytest.mark.parametrize("killed", [False, True])
async def test_a_builder_ends_with_its_channel(
    open_channel: OpenChannel, tmp_path: Path, killed: bool
) -> None:
    """Nobody waits for it any more: it is gone when the channel is closed, or its agent killed."""
    base = tmp_path / "slow-python"
    base.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nexec sleep 300\n")
    base.chmod(0o755)
    channel = await open_channel()
    request = {"digest": "c" * 64, "base": str(base)}
    building = asyncio.create_task(channel.request("environment", request, timeout_s=scaled(60)))
    pid = tmp_path / "pid"
    await eventually(lambda: pid.exists() and pid.read_text().strip())

    if killed:
        os.kill(channel.hello.pid, signal.SIGKILL)
    else:
        await channel.close()

    await eventually(lambda: not exists(int(pid.read_text())), 5)
    with pytest.raises(Exception, match="gone"):
        await building
