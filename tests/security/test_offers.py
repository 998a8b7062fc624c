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
from typing import Any, cast

import pytest

from orchestrator.adapters.agent_client.channel import Reply
from orchestrator.adapters.store.layout import RunFolder
from orchestrator.core.base.errors import RunFailed
from orchestrator.core.model.inventory import NodeSpec, SshEndpoint
from orchestrator.engine.node import log_stream as watching
from orchestrator.engine.node.collect_outputs import collect_outputs
from orchestrator.engine.node.log_stream import BadStream, Spool
from orchestrator.node_agent.attempt.outputs import list_outputs, read_output
from orchestrator.node_agent.base.agent_errors import AgentFault
from orchestrator.node_agent.base.node_layout import NodeLayout
from orchestrator.parsing.replies.output_listing import parse_listing
from tests.security.rows import UNSAFE_FILES
from tests.time_limits import scaled

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
        parse_listing("n1", json.dumps(listing).encode())


@pytest.mark.parametrize(
    "folders",
    [["../out"], ["/abs"], ["f"], ["f/below"], ["l"], ["l/below"], ["e", "e"], [7], "text"],
    ids=str,
)
def test_empty_folders_that_are_refused(folders: object) -> None:
    """Outside the artifact folder, in the place of what is offered, or below a file or link."""
    listing = {
        "files": [{"path": "f", "bytes": 0, "sha256": EMPTY}],
        "links": [{"path": "l", "target": "f"}],
        "folders": folders,
    }
    with pytest.raises(RunFailed, match="list of outputs"):
        parse_listing("n1", json.dumps(listing).encode())


def test_a_path_that_is_named_twice() -> None:
    """The second would replace what was verified before."""
    twice = [{"path": "a", "bytes": 0, "sha256": EMPTY}] * 2
    with pytest.raises(RunFailed, match="list of outputs"):
        parse_listing("n1", json.dumps({"files": twice}).encode())


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
        self.links: list[dict[str, str]] = []
        self.skipped: list[dict[str, str]] = []
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
            asked = fields.get("paths", list(self._files))
            files = [entry for entry in files if entry["path"] in asked]
            listing = {"files": files, "links": self.links, "skipped": self.skipped}
            return Reply(fields={}, payload=json.dumps(listing).encode())
        content = self._files[fields["path"]]
        chunk = content[fields["offset"] : fields["offset"] + fields["length"]]
        self.sent += len(chunk)
        return Reply(fields={}, payload=chunk)


async def collected(node: Node, folder: RunFolder) -> Path:
    link: Any = node
    await collect_outputs(link, "r", 1, folder, timeout_s=scaled(20))
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
    """A file that is not what the list says is absent here, not half there, and that is said."""
    link: Any = Node({"a": b"content"}, **claims)

    came = await collect_outputs(link, "r", 1, folder, timeout_s=20)

    assert not [path for path in folder.artifacts.rglob("*") if path.is_file()]
    assert (came.files, came.left) == (0, 1)
    assert came.left_out == ("a: it keeps changing while it is copied",)
    assert json.loads(folder.left_out("n1").read_text()) == {"a": came.left_out[0][3:]}
    assert link.sent <= 3 * len(b"content")


class Restless(Node):
    """Its files are written to ``times`` more times, each time after they were listed."""

    def __init__(self, files: dict[str, bytes], times: int) -> None:
        super().__init__(files)
        self._times = times

    async def request(self, op: str, fields: Any, *, timeout_s: float) -> Reply:
        reply = await super().request(op, fields, timeout_s=timeout_s)
        if op == "outputs" and self._times:
            self._times -= 1
            self._files["growing"] += b"more"
            self._files["rewritten"] = b"%d" % self._times
        return reply


@pytest.mark.parametrize("times, came", [(2, 3), (3, 2)])
async def test_a_file_that_changes_while_it_is_copied(
    folder: RunFolder, times: int, came: int
) -> None:
    """It is asked for again; the others come all the same. One that only grows came as listed."""
    files = {"growing": b"x", "rewritten": b"first", "steady": b"s"}
    node: Any = Restless(files, times)

    collection = await collect_outputs(node, "r", 1, folder, timeout_s=20)

    root = folder.node_artifacts("n1")
    assert collection.files == came
    assert (root / "growing").read_bytes() == b"x"
    assert (root / "steady").read_bytes() == b"s"
    assert (root / "rewritten").exists() == (times == 2)
    assert collection.left == 3 - came


async def test_links_that_stay_inside_come(folder: RunFolder) -> None:
    """As links, after the files, also when the same outputs are collected again."""
    node: Any = Node({"hub/blobs/9f": b"weights", "ckpt-20/w": b"w"})
    node.links = [
        {"path": "hub/snapshots/abc/model.bin", "target": "../../blobs/9f"},
        {"path": "latest", "target": "ckpt-20"},
        {"path": "dangling", "target": "not-there"},
    ]
    node.skipped = [{"path": "final.bin", "why": "a link to '/x', outside the outputs"}]

    for _ in range(2):
        came = await collect_outputs(node, "r", 1, folder, timeout_s=20)

    root = folder.node_artifacts("n1")
    assert (came.files, came.links, came.left) == (2, 3, 1)
    assert (root / "hub/snapshots/abc/model.bin").read_bytes() == b"weights"
    assert (root / "latest").readlink() == Path("ckpt-20")
    assert json.loads(folder.left_out("n1").read_text()).keys() == {"final.bin"}


@pytest.mark.parametrize(
    "path, target",
    [
        ("a", "/etc/passwd"),
        ("a", ".."),
        ("a", "../x"),
        ("d/a", "../../x"),
        ("d/a", "x/../../.."),
        ("a", ""),
        ("a", "x\0"),
        ("a", "x\n"),
        ("a", "x\u202e"),
        ("../a", "x"),
        ("a/../b", "x"),
        ("f", "x"),
        ("f/a", "x"),
    ],
)
async def test_unsafe_links_of_outputs(folder: RunFolder, path: str, target: str) -> None:
    """A listing with a link that leaves its folder, or takes a file's place, is refused whole."""
    node: Any = Node({"f": b"x"})
    node.links = [{"path": path, "target": target}]

    with pytest.raises(RunFailed, match="list of outputs"):
        await collect_outputs(node, "r", 1, folder, timeout_s=20)

    assert everything(folder.artifacts) == set()


async def test_a_link_is_no_way_out_for_a_file(folder: RunFolder) -> None:
    """What an earlier listing linked is gone before a file is put below the same name."""
    node: Any = Node({"d/x": b"1"})
    node.links = [{"path": "l", "target": "d"}]
    await collect_outputs(node, "r", 1, folder, timeout_s=20)

    await collect_outputs(cast("Any", Node({"l/x": b"2"})), "r", 1, folder, timeout_s=20)

    root = folder.node_artifacts("n1")
    assert ((root / "d/x").read_bytes(), (root / "l/x").read_bytes()) == (b"1", b"2")


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
    payload = json.loads(list_outputs(layout, REQUEST)[1])
    return (
        [entry["path"] for entry in payload["files"]],
        {entry["path"]: entry["why"] for entry in payload["skipped"]},
    )


def links_and_skipped(layout: NodeLayout) -> tuple[dict[str, str], dict[str, str]]:
    payload = json.loads(list_outputs(layout, REQUEST)[1])
    return (
        {entry["path"]: entry["target"] for entry in payload["links"]},
        {entry["path"]: entry["why"] for entry in payload["skipped"]},
    )


def test_links_are_offered_if_they_stay_inside(
    attempt: tuple[NodeLayout, Path], tmp_path: Path
) -> None:
    """With relative targets, however they were made; others and odd names are told."""
    layout, output = attempt
    (output / "hub/blobs").mkdir(parents=True)
    (output / "hub/blobs/9f").write_bytes(b"w")
    (output / "hub/snap").symlink_to("blobs/9f")
    (output / "latest").symlink_to(output / "hub/blobs")
    (output / "around").symlink_to(f"../{output.name}/hub")
    (output / "dangling").symlink_to("hub/none")
    (output / "final.bin").symlink_to(tmp_path / "elsewhere")
    (output / "chain").symlink_to("final.bin")
    (output / "eval\ttab.txt").write_bytes(b"x")
    (output / "screen\u202f1\u00a02.png").write_bytes(b"x")
    Path(os.fsdecode(os.fsencode(output) + b"/r\xe9sum\xe9")).write_bytes(b"x")

    links, skipped = links_and_skipped(layout)

    assert links == {
        "hub/snap": "blobs/9f",
        "latest": "hub/blobs",
        "around": "hub",
        "dangling": "hub/none",
        "chain": "final.bin",
    }
    assert set(skipped) == {"final.bin", "eval?tab.txt", "r?sum?"}
    assert "outside the outputs" in skipped["final.bin"]
    assert listed(layout)[0] == ["hub/blobs/9f", "screen\u202f1\u00a02.png"]


def test_only_the_files_that_changed_are_described_again(
    attempt: tuple[NodeLayout, Path],
) -> None:
    """By name; what is gone meanwhile is told, and no name leads out."""
    layout, output = attempt
    for name in ("a", "b"):
        (output / name).write_bytes(b"x")

    payload = json.loads(list_outputs(layout, {**REQUEST, "paths": ["b", "gone"]})[1])

    assert [entry["path"] for entry in payload["files"]] == ["b"]
    assert [entry["path"] for entry in payload["skipped"]] == ["gone"]
    with pytest.raises(AgentFault):
        list_outputs(layout, {**REQUEST, "paths": ["../a"]})


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
            read_output(layout, {**REQUEST, "path": path, "offset": 0, "length": 10})


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
        thread.join(scaled(10))


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
            payload = list_outputs(layout, REQUEST)[1]
            assert canary not in payload.decode()
            assert "steady" in payload.decode()
            with contextlib.suppress(AgentFault):
                request = {**REQUEST, "path": "place/file", "offset": 0, "length": 10}
                assert read_output(layout, request)[1] in {b"", b"mine"}
