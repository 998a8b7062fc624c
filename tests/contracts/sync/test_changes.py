"""A snapshot that is offered as a change of one that a node has: the same, for less."""

from __future__ import annotations

import os
import shutil
import zlib
from pathlib import Path

import pytest

from orchestrator.core.base.manifest import Manifest, digest_of
from orchestrator.core.base.manifest_change import change_between
from orchestrator.node_agent.attempt.cache_pruning import prune_caches
from orchestrator.node_agent.attempt.workcopy import copy_code
from orchestrator.node_agent.base.agent_errors import DAMAGED, AgentFault
from orchestrator.node_agent.code import complete_snapshots, snapshot_change
from orchestrator.node_agent.code.complete_snapshots import shared_with
from orchestrator.node_agent.code.shared_folders import MAX_SHARES
from tests.contracts.sync.test_node import Crash, failing_at_each_call
from tests.contracts.sync.trees import Files, Node, contents, manifest_of, payload_of

DAY_S = 86_400.0
OLD: Files = {
    ".orchestrate/kit/k.py": b"kit",
    "a.py": b"old",
    "d/b.py": b"same",
    "d/e/c.py": b"same, too",
    "gone/x": b"x",
    "z/y/x/w.py": b"deep",
    "z/y/v.py": b"v",
}
NEW: Files = {name: data for name, data in OLD.items() if name != "gone/x"} | {
    "a.py": b"new!",
    "gone": b"a file now",
    "new/place/n.py": b"n",
    "z/y/x/w.py": b"deep, and changed",
    "copy.py": b"same",
}


@pytest.fixture(params=[False, True], ids=["linked", "shared"])
def shared(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether folders are shared, as they are with many files."""
    if request.param:
        monkeypatch.setattr(snapshot_change, "SHARE_FROM", 1)
    return bool(request.param)


def whole(path: Path, tmp_path: Path) -> dict[str, bytes | str]:
    """What a job finds in its copy of the snapshot."""
    work = tmp_path / f"work-{path.name}"
    shutil.rmtree(work, ignore_errors=True)
    copy_code(str(path), str(work))
    return contents(work)


def bring(node: Node, old: Manifest, new: Manifest, files: Files) -> Path:
    """``new``, by a change of ``old``."""
    reply = node.offer_change(old, new)
    if not reply["have"]:
        assert "missing" in reply
        change = change_between(old.encode(), new.encode())
        assert change is not None
        base = digest_of(old.encode())
        assert node.push(new, payload_of(change.manifest, files), base=base)["complete"] is True
    return node.path(new)


def test_a_change_leads_to_what_the_whole_would(node: Node, tmp_path: Path, shared: bool) -> None:
    """Contents, links, what is gone; the old one is as it was; an unchanged offer answers."""
    links = {"d/link": "../a.py", "dir": "d/e"}
    old, new = manifest_of(OLD, links=links), manifest_of(NEW, executable=["a.py"], links=links)
    node.take(old, OLD)

    path = bring(node, old, new, NEW)

    assert whole(path, tmp_path) == {**NEW, **links}
    assert whole(node.path(old), tmp_path) == {**OLD, **links}
    assert (path / "d").is_symlink() is shared
    assert (path / "d/b.py").samefile(node.path(old) / "d/b.py")
    assert os.access(path / "a.py", os.X_OK)
    assert node.has(new)
    assert node.has(new, check=True)
    assert not any(".partial" in p.name for p in path.parent.iterdir())


def test_only_what_the_base_lacks_is_asked_for(node: Node) -> None:
    """A content that moved, or that another file has, is there."""
    old = manifest_of(OLD)
    node.take(old, OLD)
    moved = {**{n: d for n, d in OLD.items() if n != "d/b.py"}, "b.py": OLD["d/b.py"]}
    assert node.offer_change(old, manifest_of(moved))["have"] is True
    assert contents(node.path(manifest_of(moved))) == moved


def test_changes_of_changes_do_not_chain(node: Node, tmp_path: Path, shared: bool) -> None:
    """Each shares with few, however long the history: then files are linked one by one."""
    manifests, files = [manifest_of(OLD)], dict(OLD)
    node.take(manifests[0], OLD)
    for number in range(12):
        files = {**files, f"z/{number}/f": b"%d" % number, "a.py": b"a%d" % number}
        manifests.append(manifest_of(files))
        path = bring(node, manifests[-2], manifests[-1], files)
        assert whole(path, tmp_path) == files
        assert len(shared_with(str(path))) <= MAX_SHARES
        for link in path.rglob("*"):
            if link.is_symlink():
                assert os.path.realpath(link) == str(link.readlink())
    assert bool(shared_with(str(path))) is shared


def test_what_folders_are_shared_with_is_not_pruned(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the one that shares them is there; and if they went all the same, it is made whole."""
    monkeypatch.setattr(snapshot_change, "SHARE_FROM", 1)
    old, new = manifest_of(OLD), manifest_of(NEW)
    node.take(old, OLD)
    bring(node, old, new, NEW)
    os.utime(node.path(old), (1e9, 1e9))

    prune_caches(node.layout, {"older_than_s": DAY_S})

    assert whole(node.path(new), tmp_path) == NEW
    shutil.rmtree(node.path(old))
    assert not node.has(new)
    node.take(new, NEW)
    assert whole(node.path(new), tmp_path) == NEW
    assert node.has(new, check=True)
    os.utime(node.path(new), (1e9, 1e9))
    node.take(old, OLD)
    prune_caches(node.layout, {"older_than_s": DAY_S})
    assert node.known() == {digest_of(old.encode())}


def test_a_base_that_a_job_edited_is_not_built_upon(node: Node, tmp_path: Path) -> None:
    """The whole is offered then, and asks for what is not sealed any more."""
    old, new = manifest_of(OLD), manifest_of(NEW)
    victim = node.take(old, OLD) / "d/e/c.py"
    victim.unlink()
    victim.write_bytes(b"edited...")

    assert node.offer_change(old, new) == {"have": False, "digest": digest_of(new.encode())}
    node.take(new, NEW)
    assert whole(node.path(new), tmp_path) == NEW


@pytest.mark.parametrize("place", ["d/e/c.py", "a.py"])
def test_what_was_edited_is_not_copied_and_sent_again(
    node: Node, tmp_path: Path, shared: bool, place: str
) -> None:
    """Root may edit what nobody else can: the copy that ranks would run in is refused, by name, and
    the next offer looks at every file, also of the snapshot that folders are shared with.
    """
    old, new = manifest_of(OLD), manifest_of(NEW)
    node.take(old, OLD)
    root = bring(node, old, new, NEW)
    victim = (root / place).resolve()
    victim.unlink()
    victim.write_bytes(b"edited")

    with pytest.raises(AgentFault, match=place.rpartition("/")[2]) as refused:
        whole(root, tmp_path)
    assert refused.value.id == DAMAGED
    node.take(old, OLD)
    node.take(new, NEW)
    assert whole(root, tmp_path) == NEW


def test_the_node_may_die_at_any_call_of_a_change(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    """Nothing that is visible is torn; what follows is a change again, or the whole."""
    old, new = manifest_of(OLD), manifest_of(NEW)
    node.take(old, OLD)

    def sync() -> None:
        reply = node.offer_change(old, new)
        if not reply["have"] and "missing" not in reply:
            node.take(new, NEW)
        else:
            bring(node, old, new, NEW)

    crashes = 0
    for _ in failing_at_each_call(monkeypatch, sync, Crash()):
        crashes += 1
        if node.has(new):
            assert whole(node.path(new), tmp_path) == NEW
        assert contents(node.path(old)) == OLD
    assert crashes > 10
    assert whole(node.path(new), tmp_path) == NEW


def test_an_unfinished_change_is_not_believed_after_a_reboot(
    node: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole is offered, and all that is there is read."""
    old, new = manifest_of(OLD), manifest_of(NEW)
    node.take(old, OLD)
    assert "missing" in node.offer_change(old, new)
    monkeypatch.setattr(complete_snapshots, "boot_name", lambda: "after-the-power-cut")

    assert "missing" not in node.offer_change(old, new)
    node.take(new, NEW)
    assert whole(node.path(new), tmp_path) == NEW


def test_the_whole_and_a_change_may_come_at_once(node: Node, tmp_path: Path) -> None:
    """Each part says what it counts by."""
    old, new = manifest_of(OLD), manifest_of(NEW)
    node.take(old, OLD)
    node.offer_change(old, new)
    node.offer(new)
    change = change_between(old.encode(), new.encode())
    assert change is not None
    part = payload_of(change.manifest, NEW)
    node.push(new, part, last=False, base=digest_of(old.encode()))
    assert node.push(new, payload_of(new, NEW))["complete"] is True
    packed = zlib.compress(part)
    late = node.push(new, packed, base=digest_of(old.encode()), compressed=True)
    assert late["complete"] is True
    assert whole(node.path(new), tmp_path) == NEW
