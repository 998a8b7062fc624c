"""The node's side: a snapshot is complete and verified, or it is not there."""

from __future__ import annotations

import base64
import errno
import io
import os
import stat
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.core.base.manifest import digest_of
from orchestrator.node_agent.base.agent_errors import AgentFault
from orchestrator.node_agent.code import complete_snapshots, shared_folders, snapshot_marks
from orchestrator.node_agent.code import snapshot as node_snapshot
from orchestrator.node_agent.code import snapshot_change as node_change
from orchestrator.node_agent.code import snapshot_dir as node_tree
from orchestrator.node_agent.code.snapshot import offer_snapshot, push_part
from tests.contracts.sync.trees import NEW, OLD, Node, contents, manifest_of, payload_of, piece
from tests.time_limits import scaled

BIG = {"big.bin": os.urandom(3_000_000), "copy/of-big.bin": b"", "small": b"s"}
BIG["copy/of-big.bin"] = BIG["big.bin"]


class Cut(io.RawIOBase):
    """A payload whose link ends after ``limit`` bytes."""

    def __init__(self, data: bytes, limit: int) -> None:
        self._left = data[:limit]

    def read(self, size: int = -1) -> bytes:
        if not self._left:
            raise EOFError("the link ended within a payload")
        data, self._left = self._left[:size], self._left[size:]
        return data


def test_what_arrives_is_what_was_sent(node: Node) -> None:
    """Contents, executable bits and links are the manifest's; nothing is writable."""
    manifest = manifest_of(NEW, executable=["a.py"], links={"d/link": "../a.py", "dir": "d/e"})

    path = node.take(manifest, NEW)

    assert contents(path) == {**NEW, "d/link": "../a.py", "dir": "d/e"}
    modes = {name: (path / name).stat().st_mode for name in NEW}
    assert [name for name, mode in modes.items() if mode & stat.S_IXUSR] == ["a.py"]
    assert not any(mode & 0o222 for mode in modes.values())
    assert node.has(manifest)


def test_an_unknown_snapshot_is_not_there(node: Node) -> None:
    """A bare question changes nothing."""
    assert not node.has(manifest_of(NEW))
    assert list(Path(node.layout.snapshots).iterdir()) == []


def test_only_missing_contents_are_asked_for(node: Node) -> None:
    """With a base, the node asks for what that does not have, and shares the rest."""
    first = manifest_of(OLD)
    node.take(first, OLD)
    second = manifest_of(NEW)

    reply = node.offer(second, bases=["0" * 40, digest_of(first.encode())])

    asked = zlib.decompress(base64.b64decode(reply["missing"]))
    blobs = list(second.blobs())
    wanted = {blobs[i] for i in range(len(blobs)) if asked[i // 8] >> i % 8 & 1}
    assert wanted == {digest_of(NEW[name]) for name in ("a.py", "d/e/c.bin", "empty")}
    assert node.push(second, payload_of(second, NEW))["complete"] is True
    shared = (node.path(first) / "d/b.py").stat(), (node.path(second) / "d/b.py").stat()
    assert shared[0].st_ino == shared[1].st_ino
    assert contents(node.path(first)) == OLD


def test_removing_renaming_and_modes_need_no_transfer(node: Node) -> None:
    """If the base has every content with its mode, the offer alone completes the snapshot."""
    files = {"a": b"1", "b": b"2", "c": b"3"}
    first = manifest_of(files, executable=["c"])
    node.take(first, files)
    moved = {"x/a": b"1", "b": b"2", "c": b"3"}

    for second in (manifest_of({"a": b"1"}), manifest_of(moved, executable=["c"])):
        assert node.offer(second, bases=[digest_of(first.encode())])["have"] is True
    assert contents(node.path(second)) == moved

    changed = manifest_of(files, executable=["a", "c"])
    assert node.offer(changed, bases=[digest_of(first.encode())])["have"] is False
    node.push(changed, payload_of(changed, files))
    assert (node.path(changed) / "a").stat().st_mode & stat.S_IXUSR
    assert not (node.path(first) / "a").stat().st_mode & stat.S_IXUSR


@pytest.mark.parametrize("compressed", [False, True])
def test_a_push_may_be_cut_at_any_byte(node: Node, compressed: bool) -> None:
    """Wherever the link ends, the old snapshot is intact, the new one absent, and a retry works."""
    old = manifest_of(OLD)
    node.take(old, OLD)
    new = manifest_of(NEW)
    payload = payload_of(new, NEW)
    payload = zlib.compress(payload) if compressed else payload
    step = max(1, len(payload) // 150)
    for cut in range(0, len(payload), step):
        node.offer(new)
        with pytest.raises(EOFError):
            node.push(new, Cut(payload, cut), compressed=compressed)
        assert not node.has(new)
        assert contents(node.path(old)) == OLD

    assert node.push(new, payload, compressed=compressed)["complete"] is True
    assert contents(node.path(new)) == NEW


def test_parts_that_arrived_are_not_asked_for_again(node: Node) -> None:
    """After a cut between parts, the next offer lacks only the others."""
    manifest = manifest_of(NEW)
    node.offer(manifest)
    parts = [piece(i, NEW[n]) for i, n in enumerate(NEW)]
    node.push(manifest, parts[0], last=False)
    node.push(manifest, parts[2], last=False)

    missing = node.offer(manifest)["missing"]
    reply = node.push(manifest, parts[1] + parts[3])

    asked = int.from_bytes(zlib.decompress(base64.b64decode(missing)), "little")
    assert asked == 0b1010
    assert reply["complete"] is True
    assert contents(node.path(manifest)) == NEW


class Crash(BaseException):
    """The process dies here."""


class FragileOs:
    """``os`` whose ``n``-th changing call fails; a write gets half of its bytes out before."""

    CHANGING = frozenset("open write utime rename link mkdir makedirs symlink unlink chmod".split())

    def __init__(self, n: int, error: BaseException) -> None:
        self.left = n
        self._error = error

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return partial_call(self, name, real) if name in self.CHANGING else real

    def spend(self, name: str, arguments: tuple[Any, ...]) -> None:
        self.left -= 1
        if self.left == 0:
            if name == "write":
                os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
            raise self._error


def partial_call(fragile: FragileOs, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        fragile.spend(name, arguments)
        return real(*arguments, **options)

    return call


def failing_at_each_call(
    monkeypatch: pytest.MonkeyPatch, act: Callable[[], object], error: BaseException
) -> Iterator[BaseException]:
    """Do ``act`` with its first changing call failing, then its second, ... until it succeeds."""
    for n in range(1, 500):
        fragile = FragileOs(n, error)
        with monkeypatch.context() as patch:
            patch.setattr(node_tree, "os", fragile)
            for module in (node_snapshot, node_change, shared_folders, snapshot_marks):
                patch.setattr(module, "os", fragile)
            try:
                act()
            except (Crash, AgentFault) as raised:
                failure: BaseException = raised
            else:
                assert fragile.left > 0
                return
        yield failure
    pytest.fail("it never succeeds")


def test_the_node_may_die_at_any_system_call(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash at any step tears nothing that is visible, and repeating goes on from there."""
    base = manifest_of(OLD)
    node.take(base, OLD)
    new = manifest_of(NEW, links={"link": "a.py"})
    payload = payload_of(new, NEW)

    def sync() -> None:
        reply = node.offer(new, bases=[digest_of(base.encode())])
        if not reply["have"]:
            assert node.push(new, payload)["complete"] is True

    crashes = 0
    for _ in failing_at_each_call(monkeypatch, sync, Crash()):
        crashes += 1
        if node.has(new):
            assert contents(node.path(new)) == {**NEW, "link": "a.py"}
        assert contents(node.path(base)) == OLD

    assert crashes > 10
    assert contents(node.path(new)) == {**NEW, "link": "a.py"}


def test_a_full_disk_is_an_error_that_says_so(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOSPC at any step is OR-AGENT-DISK, tears nothing, and the next try completes."""
    old = manifest_of(OLD)
    node.take(old, OLD)
    new = manifest_of(NEW)

    def sync() -> None:
        if not node.offer(new)["have"]:
            node.push(new, payload_of(new, NEW))

    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    for failure in failing_at_each_call(monkeypatch, sync, full):
        assert isinstance(failure, AgentFault)
        assert failure.id == "OR-AGENT-DISK"
        assert contents(node.path(old)) == OLD
    assert contents(node.path(new)) == NEW


def test_too_little_space_is_said_before_anything_is_sent(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Free bytes and inodes are compared with what is to come."""
    manifest = manifest_of(NEW)
    for free, inodes in ((100, 1000), (1 << 40, 2)):
        status = SimpleNamespace(f_bavail=free, f_frsize=1, f_files=1000, f_favail=inodes)
        with monkeypatch.context() as patch:
            patch.setattr(os, "statvfs", lambda _, status=status: status)
            with pytest.raises(AgentFault, match=r"too (little|few)") as caught:
                node.offer(manifest)
        assert caught.value.id == "OR-AGENT-DISK"


def test_contents_that_do_not_match_stay_missing(node: Node) -> None:
    """A content with another digest never gets a name; the node asks for it again."""
    manifest = manifest_of({"a": b"good", "b": b"fine"})
    node.offer(manifest)

    reply = node.push(manifest, piece(0, b"evil") + piece(1, b"fine"))

    assert reply["complete"] is False
    assert not node.path(manifest).exists()
    assert node.push(manifest, piece(0, b"good"))["complete"] is True


def test_large_contents_come_in_pieces(node: Node) -> None:
    """Pieces make one verified file, also at its second path; a lost or wrong one spoils all."""
    manifest = manifest_of(BIG)
    data, half = BIG["big.bin"], 1_500_000
    node.offer(manifest)
    assert node.push(manifest, piece(0, data[half:], half) + piece(1, b"s"))["complete"] is False
    node.push(manifest, piece(0, data[:half]), last=False)
    assert node.push(manifest, piece(0, b"x" * half, half))["complete"] is False

    node.push(manifest, piece(0, data[:half]), last=False)
    assert node.push(manifest, piece(0, data[half:], half))["complete"] is True

    assert contents(node.path(manifest)) == BIG


def test_two_that_send_one_large_content_do_not_undo_each_other(node: Node) -> None:
    """The second begins when the first is in the middle: each is complete with its last piece."""
    manifest = manifest_of({"big.bin": BIG["big.bin"]})
    pieces = [
        piece(0, BIG["big.bin"][at : at + 500_000], at) for at in range(0, 3_000_000, 500_000)
    ]
    node.offer(manifest)
    for one in (*pieces[:3], *pieces[:2]):
        node.push(manifest, one, last=False)

    first = [node.push(manifest, one, last=one is pieces[-1]) for one in pieces[3:]]
    second = [node.push(manifest, one, last=one is pieces[-1]) for one in pieces[2:]]

    assert first[-1]["complete"] is True
    assert second[-1]["complete"] is True
    assert contents(node.path(manifest)) == {"big.bin": BIG["big.bin"]}


def test_two_syncs_at_once_are_safe(tmp_path: Path) -> None:
    """Threads that push the same and different snapshots all end with complete ones."""
    variants = [{**NEW, "variant": str(i % 2).encode()} for i in range(6)]
    failures: list[BaseException] = []

    def sync(files: dict[str, bytes]) -> None:
        try:
            Node(tmp_path / "work").take(manifest_of(files), files)
        except BaseException as error:  # noqa: BLE001 - reported by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=sync, args=(files,)) for files in variants]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(scaled(30))

    node = Node(tmp_path / "work")
    assert failures == []
    assert len(node.known()) == 2
    for files in variants:
        assert contents(node.path(manifest_of(files))) == files


def test_one_at_a_time_works_on_a_snapshot(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process holds a snapshot, it is waited for, not for ever; others go on."""
    held, other = manifest_of(OLD), manifest_of(NEW)
    monkeypatch.setattr(node_snapshot, "LOCK_WAIT_S", 0.05)
    node.offer(held)

    with node.layout.locked(f"snapshot-{digest_of(held.encode())}"):
        with pytest.raises(AgentFault, match="held by another"):
            node.offer(held)
        with pytest.raises(AgentFault, match="held by another"):
            node.push(held, payload_of(held, OLD))
        node.take(other, NEW)

    node.take(held, OLD)


def test_an_answer_at_once_waits_for_nobody_and_reads_nothing(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes before a hello, which has seconds; to read a snapshot may take minutes."""
    manifest, other = manifest_of(OLD), digest_of(manifest_of(NEW).encode())
    digest = digest_of(manifest.encode())
    node.take(manifest, OLD)
    assert offer_snapshot(node.layout, digest, at_once=True)["have"]
    assert offer_snapshot(node.layout, other, bases=[digest], at_once=True)["base"] == digest

    with (
        node.layout.locked(f"snapshot-{digest}"),
        pytest.raises(AgentFault, match="held by another"),
    ):
        offer_snapshot(node.layout, digest, at_once=True)
    monkeypatch.setattr(complete_snapshots, "boot_name", lambda: "after-the-power-cut")
    with pytest.raises(AgentFault, match="has to be read first"):
        offer_snapshot(node.layout, digest, at_once=True)
    assert offer_snapshot(node.layout, digest)["have"]
    assert offer_snapshot(node.layout, digest, at_once=True)["have"]


@pytest.mark.parametrize(
    "payload, header",
    [
        (piece(7, b"x"), {}),
        (piece(0, b"x")[:10], {}),
        (piece(0, b"xyz")[:-1], {}),
        (b"no zlib", {"compressed": True}),
        (zlib.compress(bytes(9_000_000)), {"compressed": True}),
        (zlib.compress(piece(0, b"x"))[:-3], {"compressed": True}),
        (bytes(9_000_000), {}),
    ],
)
def test_senseless_parts_are_refused(node: Node, payload: bytes, header: Any) -> None:
    """Wrong indices, torn pieces and bombs are refused; nothing becomes visible."""
    manifest = manifest_of({"a": b"x", "b": b"y"})
    node.offer(manifest)

    with pytest.raises(AgentFault):
        node.push(manifest, payload, **header)

    assert node.known() == set()


def test_a_push_without_an_offer_is_refused(node: Node) -> None:
    """Without a manifest there is nothing to verify against."""
    with pytest.raises(AgentFault, match="offer"):
        node.push(manifest_of(NEW), payload_of(manifest_of(NEW), NEW))


@pytest.mark.parametrize("digest", ["", "../x", "0" * 39 + "/", "A" * 40, "0" * 200])
def test_digests_are_checked_before_they_become_paths(node: Node, digest: str) -> None:
    """A digest is a file name on the node."""
    with pytest.raises(AgentFault):
        offer_snapshot(node.layout, digest)
    with pytest.raises(AgentFault):
        push_part(node.layout, digest, {}, io.BytesIO())
