"""What nodes offer as outputs and logs: only plain files, only below their folder, on both sides.

Fixed lists of lies are in tests/engine/node/test_untrusted.py and
tests/contracts/agent/base/test_names.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import resource
import shutil
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.agent_client.channel import Reply
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.core.base.errors import RunFailed
from orchestrator.core.model.inventory import NodeSpec, SshEndpoint
from orchestrator.engine.node import log_stream as watching
from orchestrator.engine.node.collect_outputs import collect_outputs, parse_outputs
from orchestrator.engine.node.log_stream import BadStream, Spool
from orchestrator.node_agent.attempt.outputs import fetch, outputs
from orchestrator.node_agent.base.agent_errors import AgentFault
from orchestrator.node_agent.base.node_layout import NodeLayout
from tests.security.rows import UNSAFE_FILES

MOMENT_S = 0.0005  # as long as one look takes, so that it meets every state
EMPTY = hashlib.sha256(b"").hexdigest()
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="hardware: only root can make devices")
REQUEST: dict[str, Any] = {"run": "r", "node": "n", "attempt": 1}


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    return folder


def everything(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.mark.parametrize("path", UNSAFE_FILES.values(), ids=UNSAFE_FILES)
@pytest.mark.parametrize("shape", ["{}", "a/{}", "{}/a"])
def test_unsafe_paths_of_outputs(path: str, shape: str) -> None:
    """A listing with one such path is refused as a whole, wherever in the path it stands."""
    listing = {"files": [{"path": shape.format(path), "bytes": 0, "sha256": EMPTY}]}
    with pytest.raises(RunFailed, match="list of outputs"):
        parse_outputs("n1", json.dumps(listing).encode())


def test_a_path_that_is_named_twice() -> None:
    """The second would replace what was verified before."""
    twice = [{"path": "a", "bytes": 0, "sha256": EMPTY}] * 2
    with pytest.raises(RunFailed, match="list of outputs"):
        parse_outputs("n1", json.dumps({"files": twice}).encode())


@pytest.mark.parametrize(
    "name",
    [
        *UNSAFE_FILES.values(),
        ".hidden.out",
        "rank-0.out/",
        "rank-0.out.",
        "rank-0.out ",
        "rank-0.sh",
        "attempt-2",
        "a b.out",
        "CON.out\0",
        "x" * 65 + ".out",
        "result.json",
    ],
)
def test_unsafe_names_of_logs(name: str, folder: RunFolder) -> None:
    """Only what a supervisor calls its streams becomes a file."""
    before = everything(folder.path)
    with pytest.raises(BadStream, match="sent a log called"):
        spool_of(folder).append(name, 0, b"x")
    assert everything(folder.path) == before


def spool_of(folder: RunFolder) -> Spool:
    return Spool("n1", folder.node_logs("n1"), lambda file: folder.log("n1", file))


def test_names_without_end(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that invents names uses up neither descriptors nor the patience of the run."""
    monkeypatch.setattr(watching, "MAX_LOGS", 100)
    spool = spool_of(folder)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (opened + 20, limits[1]))
    try:
        for number in range(100):
            spool.append(f"rank-{number}.out", 0, b"x")
        with pytest.raises(BadStream, match="more than 100 logs"):
            spool.append("rank-100.out", 0, b"x")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


class Node:
    """A link to a node that offers ``files`` (path -> content) and claims what it likes."""

    def __init__(self, files: dict[str, bytes], **claims: object) -> None:
        self.spec = NodeSpec(name="n1", ssh=SshEndpoint(host="n1"))
        self.sent = 0
        self._files = files
        self._claims = claims

    async def request(self, op: str, fields: Any, *, timeout_s: float) -> Reply:
        if op == "outputs":
            files = [
                {
                    "path": p,
                    "bytes": len(c),
                    "sha256": hashlib.sha256(c).hexdigest(),
                    **self._claims,
                }
                for p, c in self._files.items()
            ]
            return Reply(fields={}, payload=json.dumps({"files": files}).encode())
        content = self._files[fields["path"]]
        chunk = content[fields["offset"] : fields["offset"] + fields["length"]]
        self.sent += len(chunk)
        return Reply(fields={}, payload=chunk)


async def collected(node: Node, folder: RunFolder) -> Path:
    link: Any = node
    await collect_outputs(link, "r", 1, folder, timeout_s=20)
    return folder.node_artifacts("n1")


async def test_names_of_every_length_and_case(folder: RunFolder) -> None:
    """255 bytes, names like our own temporary ones, and names apart only by case all arrive."""
    offered = ["x" * 255, "ü" * 127, ".a.part", "a", ".partial-x", "A", "d/" + "y" * 255, "..."]
    root = await collected(Node({path: path.encode() for path in offered}), folder)
    assert {path: (root / path).read_bytes() for path in offered} == {
        path: path.encode() for path in offered
    }
    assert len([path for path in root.rglob("*") if path.is_file()]) == len(offered)


async def test_collected_files_are_nothing_but_bytes(folder: RunFolder) -> None:
    """Whatever they were on the node: not executable, not setuid, for their owner only."""
    root = await collected(Node({"run.sh": b"#!/bin/sh\n", "d/setuid": b"\x7fELF"}), folder)
    for path in root.rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_IMODE(mode) == (0o700 if stat.S_ISDIR(mode) else 0o600), path


async def test_more_than_fits_is_refused_before_it_comes(folder: RunFolder) -> None:
    """A claim of an exabyte costs one message, not the disk."""
    node = Node({"bomb": b"x"}, bytes=1 << 60)
    with pytest.raises(RunFailed, match="are free here"):
        await collected(node, folder)
    assert node.sent == 0


@pytest.mark.parametrize("claims", [{"sha256": "0" * 64}, {"bytes": 100}, {"bytes": 0}])
async def test_what_was_announced_must_come(folder: RunFolder, claims: dict[str, Any]) -> None:
    """A file that is not what the list says is absent here, not half there."""
    with pytest.raises(RunFailed):
        await collected(Node({"a": b"content"}, **claims), folder)
    assert not [path for path in folder.artifacts.rglob("*") if path.is_file()]


async def test_a_file_where_a_folder_must_be(folder: RunFolder) -> None:
    """`a` and `a/b` contradict each other: an error, and nothing beside the folder."""
    with pytest.raises((RunFailed, OSError)):
        await collected(Node({"a": b"x", "a/b": b"y"}), folder)
    assert everything(folder.artifacts) <= {"n1", "n1/a"}


@pytest.fixture
def attempt(tmp_path: Path) -> tuple[NodeLayout, Path]:
    """A node's layout with an attempt, and the folder where its ranks put outputs."""
    layout = NodeLayout.open(str(tmp_path / "work"))
    run = layout.run("r", "n")
    run.create()
    run.attempt(1).create()
    return layout, Path(run.attempt(1).output)


def listed(layout: NodeLayout) -> tuple[list[str], dict[str, str]]:
    """The paths that the agent offers, and those it skips with the reason."""
    payload = json.loads(outputs(layout, REQUEST)[1])
    return (
        [entry["path"] for entry in payload["files"]],
        {entry["path"]: entry["why"] for entry in payload["skipped"]},
    )


@only_root
def test_what_is_no_plain_file_stays(attempt: tuple[NodeLayout, Path], tmp_path: Path) -> None:
    """Devices, sockets, pipes, links: told, never opened; a sparse file has its size."""
    layout, output = attempt
    os.mknod(output / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    os.mkfifo(output / "pipe")
    (output / "link").symlink_to("/etc/passwd")
    (tmp_path / "precious").write_bytes(b"canary")
    (output / "up").symlink_to(tmp_path)
    (output / "setuid").write_bytes(b"x")
    (output / "setuid").chmod(0o6777)
    with (output / "sparse").open("wb") as file:
        file.truncate(64 * 1024 * 1024)
    (output / "deep").mkdir()
    here = output / "deep"
    for _ in range(40):
        here = here / "d"
    here.mkdir(parents=True)

    offered, skipped = listed(layout)

    assert offered == ["setuid", "sparse"]
    assert set(skipped) >= {"zero", "pipe", "link", "up"}
    assert "too deep" in skipped.values()
    for path in ("zero", "pipe", "link", "up/precious"):
        with pytest.raises(AgentFault):
            fetch(layout, {**REQUEST, "path": path, "offset": 0, "length": 10})


@contextlib.contextmanager
def swapping(place: Path, outside: Path) -> Iterator[None]:
    """While inside, ``place`` is a folder, a link to ``outside``, a pipe, and so on in turn."""
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            place.mkdir()
            (place / "file").write_bytes(b"mine")
            over.wait(MOMENT_S)
            shutil.rmtree(place)
            place.symlink_to(outside)
            over.wait(MOMENT_S)
            place.unlink()
            os.mkfifo(place)
            place.unlink()

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def test_swapped_between_look_and_use(attempt: tuple[NodeLayout, Path], tmp_path: Path) -> None:
    """However a rank exchanges folders and links meanwhile: no byte from outside, no failure."""
    layout, output = attempt
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"canary")
    (output / "steady").write_bytes(b"steady")
    canary = hashlib.sha256(b"canary").hexdigest()
    with swapping(output / "place", outside):
        for _ in range(300):
            payload = outputs(layout, REQUEST)[1]
            assert canary not in payload.decode()
            assert "steady" in payload.decode()
            with contextlib.suppress(AgentFault):
                request = {**REQUEST, "path": "place/file", "offset": 0, "length": 10}
                assert fetch(layout, request)[1] in {b"", b"mine"}
