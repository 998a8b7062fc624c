"""No name from the wire leads out of the work directory, and no file of a rank leads us astray."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.adapters.agent_client.channel import AgentChannel, AgentError
from tests.contracts.agent.attempts import Attempt, everything_below, shell
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

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
NAMED = "launch reserve unreserve watch renew stop signal sweep clean outputs fetch".split()
COMPLETE = {
    "run": "r",
    "node": "n",
    "attempt": 1,
    "epoch": 1,
    "lease_s": 5.0,
    "grace_s": 1.0,
    "processes": [{"label": "launcher", "rank": None, "argv": ["true"], "env": {}}],
    "target": "rank-0",
    "signal": "KILL",
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


@pytest.mark.parametrize("op", NAMED)
@pytest.mark.parametrize("key", ["run", "node"])
async def test_names_are_single_safe_words(
    channel: AgentChannel, workdir: Path, op: str, key: str
) -> None:
    """Every operation that takes a name refuses everything else, before it touches the disk."""
    before = everything_below(workdir)

    for name in UNSAFE_NAMES:
        with pytest.raises(AgentError) as refused:
            await channel.request(op, {**COMPLETE, key: name}, timeout_s=scaled(10))
        assert refused.value.id == "OR-AGENT-REQUEST", name

    assert everything_below(workdir) == before


@pytest.mark.parametrize("attempt", [-1, 10_001, "1", 1.0, True, None, "../1", [1]])
async def test_attempts_are_small_numbers(channel: AgentChannel, attempt: object) -> None:
    for op in ("launch", "watch", "renew", "stop", "signal", "outputs", "fetch"):
        with pytest.raises(AgentError) as refused:
            await channel.request(op, {**COMPLETE, "attempt": attempt}, timeout_s=scaled(10))
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
            await channel.request(op, {"digest": digest, **fields}, timeout_s=scaled(10))
    with pytest.raises(AgentError):
        await channel.request("launch", {**COMPLETE, "snapshot": digest}, timeout_s=scaled(10))


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
        {"locks": ["gpu-0"]},
        {"locks": [{"name": "../x", "mode": "shared"}]},
        {"locks": [{"name": "x", "mode": "open"}]},
        {"locks": [{"name": "x", "mode": "shared"}] * 2},
        {"locks": [{"name": "x", "mode": "shared"}], "coordinator": 7},
        {"cwd": 5},
        {"gpus": [-1]},
        {"gpus": ["0"]},
        {"gpus": [True]},
        {"gpus": 0},
        {"gpus": [0] * 65},
    ],
)
async def test_a_launch_is_checked_whole(channel: AgentChannel, change: dict[str, object]) -> None:
    """What is wrong with a request is found before anything starts."""
    with pytest.raises(AgentError) as refused:
        await channel.request("launch", {**COMPLETE, **change}, timeout_s=scaled(10))

    assert refused.value.id == "OR-AGENT-REQUEST"


async def test_outputs_stay_inside(attempt: Attempt, outside: Path) -> None:
    """Links, pipes and directories that are links are listed as skipped, and never fetched."""
    script = (
        f"cd {{output}}; ln -s {outside} link; ln -s {outside.parent} up; mkfifo pipe; "
        "mkdir -p deep/er; echo fine > deep/er/file; ln {attempt}/logs/rank-0.out hard"
    )
    await attempt.launch(shell(0, script))
    await attempt.to_end()

    reply = await attempt.channel.request("outputs", attempt.names, timeout_s=scaled(10))

    listed = json.loads(reply.payload)
    assert [f["path"] for f in listed["files"]] == ["deep/er/file", "hard"]
    assert {s["path"]: s["why"] for s in listed["skipped"]} == {
        "link": f"a link to '{outside}', outside the outputs",
        "up": f"a link to '{outside.parent}', outside the outputs",
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
            await attempt.channel.request("fetch", request, timeout_s=scaled(10))
