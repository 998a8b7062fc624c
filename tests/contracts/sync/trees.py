"""Trees of files on both sides, and a node that is called directly."""

from __future__ import annotations

import io
import os
import subprocess
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.core.base.manifest import Entry, FileEntry, LinkEntry, Manifest, digest_of
from orchestrator.core.base.manifest_change import change_between
from orchestrator.node_agent.base.node_layout import NodeLayout
from orchestrator.node_agent.code.snapshot import PIECE, offer_snapshot, push_part
from orchestrator.node_agent.code.snapshot_change import offer_change
from tests.time_limits import scaled

Files = Mapping[str, bytes]
OLD: Files = {"a.py": b"old", "d/b.py": b"same"}
NEW: Files = {
    "a.py": b"new!",
    "d/b.py": b"same",
    "d/e/c.bin": bytes(range(256)) * 8,
    "empty": b"",
}


def write_tree(folder: Path, files: Files) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def git(folder: Path, *arguments: str) -> str:
    """Run git there, with nobody's configuration."""
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, "-c", "protocol.file.allow=always", *arguments],
        capture_output=True,
        check=True,
        timeout=scaled(30),
        env=environment,
        text=True,
    )
    return done.stdout


def git_tree(folder: Path, files: Files) -> Path:
    """A repository with ``files`` committed."""
    write_tree(folder, files)
    git(folder, "init", "--quiet")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "all", "--allow-empty")
    return folder


def manifest_of(files: Files, *, executable: Iterable[str] = (), links: Any = ()) -> Manifest:
    programs = set(executable)
    entries: list[Entry] = [
        FileEntry(name, len(content), name in programs, digest_of(content))
        for name, content in files.items()
    ]
    return Manifest.of([*entries, *(LinkEntry(*link) for link in dict(links).items())])


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every file and link (its target) below ``folder``, without what the node keeps for itself."""
    found: dict[str, bytes | str] = {}
    for above, folders, names in os.walk(folder):
        for name in names + [f for f in folders if (Path(above) / f).is_symlink()]:
            path = Path(above) / name
            relative = str(path.relative_to(folder))
            if relative.startswith(".orchestrate/") and not relative.startswith(".orchestrate/kit"):
                continue
            found[relative] = str(path.readlink()) if path.is_symlink() else path.read_bytes()
    return found


class Node:
    """The node's side without a channel."""

    def __init__(self, workdir: Path) -> None:
        self.layout = NodeLayout.open(str(workdir))

    def offer(self, manifest: Manifest, *, bases: Iterable[str] = (), check: bool = False) -> Any:
        encoded = manifest.encode()
        return offer_snapshot(
            self.layout, digest_of(encoded), zlib.compress(encoded), bases=list(bases), check=check
        )

    def has(self, manifest: Manifest, *, check: bool = False) -> bool:
        return bool(offer_snapshot(self.layout, digest_of(manifest.encode()), check=check)["have"])

    def offer_change(self, old: Manifest, new: Manifest) -> Any:
        """Offer ``new`` as a change of ``old``."""
        before, after = old.encode(), new.encode()
        change = change_between(before, after)
        assert change is not None
        packed = zlib.compress(change.encode())
        return offer_change(self.layout, digest_of(after), digest_of(before), packed)

    def push(self, manifest: Manifest, payload: bytes | io.RawIOBase, **header: Any) -> Any:
        stream: Any = io.BytesIO(payload) if isinstance(payload, bytes) else payload
        return push_part(
            self.layout, digest_of(manifest.encode()), {"last": True, **header}, stream
        )

    def take(self, manifest: Manifest, files: Files) -> Path:
        """Offer and push everything; the snapshot's folder."""
        if not self.offer(manifest)["have"]:
            assert self.push(manifest, payload_of(manifest, files))["complete"] is True
        return self.path(manifest)

    def path(self, manifest: Manifest) -> Path:
        return Path(self.layout.snapshot(digest_of(manifest.encode())))

    def known(self) -> set[str]:
        """Complete snapshots, by name."""
        names = {path.name for path in Path(self.layout.snapshots).iterdir()}
        return {name for name in names if not name.startswith(".")}


def payload_of(manifest: Manifest, files: Files) -> bytes:
    """One part with every content."""
    by_digest = {digest_of(content): content for content in files.values()}
    return b"".join(
        piece(index, by_digest[digest]) for index, digest in enumerate(manifest.blobs())
    )


def piece(index: int, data: bytes, offset: int = 0) -> bytes:
    return PIECE.pack(index, offset, len(data)) + data
