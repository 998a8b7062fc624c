"""A snapshot that a node has: jobs and reboots may damage it, and it is made whole again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.core.base.manifest import digest_of
from orchestrator.node_agent.code import complete_snapshots
from orchestrator.node_agent.code import snapshot as node_snapshot
from orchestrator.node_agent.code import snapshot_dir as node_tree
from tests.contracts.sync.trees import NEW, OLD, Node, contents, manifest_of, payload_of, piece


@pytest.mark.parametrize("spoil", ["edit", "delete", "mode", "replace-by-link"])
def test_check_finds_and_repairs_what_a_job_did(node: Node, tmp_path: Path, spoil: str) -> None:
    """Files edited in place, deleted, made writable or replaced are noticed, and come back."""
    files = {f"f{i}": b"x%d" % i for i in range(4)}
    manifest = manifest_of(files)
    victim = node.take(manifest, files) / "f2"
    _spoil(victim, spoil, tmp_path)
    other = manifest_of({**files, "new": b"n"})

    reply = node.offer(other, bases=[digest_of(manifest.encode())])
    assert reply["have"] is False
    node.push(other, payload_of(other, {**files, "new": b"n"}))
    assert contents(node.path(other)) == {**files, "new": b"n"}

    assert not node.has(manifest, check=True)
    assert not node.has(manifest)
    node.take(manifest, files)
    assert contents(node.path(manifest)) == files
    assert node.has(manifest, check=True)


def _spoil(path: Path, how: str, tmp_path: Path) -> None:
    if how == "edit":
        path.chmod(0o644)
        path.write_bytes(b"x?")
        path.chmod(0o444)
    elif how == "mode":
        path.chmod(0o644)
    else:
        path.unlink()
        if how == "replace-by-link":
            (tmp_path / "elsewhere").write_bytes(b"x2")
            path.symlink_to(tmp_path / "elsewhere")


def test_files_of_a_job_do_not_make_a_snapshot_incomplete(node: Node) -> None:
    """Caches that an import leaves beside the code are nobody's damage."""
    path = node.take(manifest_of(NEW), NEW)
    (path / "__pycache__").mkdir()
    (path / "__pycache__" / "a.pyc").write_bytes(b"x")

    assert node.has(manifest_of(NEW), check=True)


def test_asking_for_a_snapshot_counts_as_using_it(node: Node) -> None:
    """What is pruned by age is told by the folder's time, which an offer renews."""
    path = node.take(manifest_of(NEW), NEW)
    os.utime(path, (1_000_000_000, 1_000_000_000))

    assert node.has(manifest_of(NEW))

    assert path.stat().st_mtime > 1_600_000_000


def test_after_a_reboot_files_are_believed_only_when_read(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut may leave a file with its size and times, but without its content."""
    manifest = manifest_of(NEW)
    victim = node.take(manifest, NEW) / "d/e/c.bin"
    times = victim.stat()
    victim.chmod(0o644)
    victim.write_bytes(bytes(len(NEW["d/e/c.bin"])))
    victim.chmod(0o444)
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert node.has(manifest, check=True)

    monkeypatch.setattr(complete_snapshots, "boot_name", lambda: "after-the-power-cut")

    assert not node.has(manifest)
    node.take(manifest, NEW)
    assert contents(node.path(manifest)) == NEW
    assert node.has(manifest)


def test_an_unfinished_snapshot_is_read_again_after_a_reboot(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What arrived before a power cut is verified again before it counts."""
    base = manifest_of(OLD)
    node.take(base, OLD)
    manifest = manifest_of(NEW)
    node.offer(manifest)
    node.push(manifest, piece(2, NEW["d/e/c.bin"]), last=False)
    partial = Path(node.layout.snapshots) / f".partial-{digest_of(manifest.encode())}"
    victim = partial / "d/e/c.bin"
    victim.chmod(0o644)
    victim.write_bytes(bytes(len(NEW["d/e/c.bin"])))
    victim.chmod(0o444)
    os.utime(victim, ns=(node_tree.SEAL_NS, node_tree.SEAL_NS))
    monkeypatch.setattr(complete_snapshots, "boot_name", lambda: "after-the-power-cut")
    assert node.has(base)

    node.offer(manifest, bases=[digest_of(base.encode())])
    node.push(manifest, payload_of(manifest, NEW))

    assert contents(node.path(manifest)) == NEW


@pytest.mark.parametrize("garbage", [b"", b"{}", b"\0" * 100])
def test_a_damaged_manifest_counts_as_absent(
    node: Node, monkeypatch: pytest.MonkeyPatch, garbage: bytes
) -> None:
    """A manifest that a power cut tore is replaced, and the snapshot with it."""
    manifest = manifest_of(NEW)
    own = node.take(manifest, NEW) / ".orchestrate"
    (own / "manifest").write_bytes(garbage)
    node_snapshot._load_manifest.cache_clear()
    monkeypatch.setattr(complete_snapshots, "boot_name", lambda: "after-the-power-cut")

    assert not node.has(manifest)
    node.take(manifest, NEW)

    assert contents(node.path(manifest)) == NEW
    assert node.has(manifest)
