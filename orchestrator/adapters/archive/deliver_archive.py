"""Bring an archive to another folder or node; it is whole there before its name is."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from orchestrator.adapters.archive.read_archive import archive_digest
from orchestrator.adapters.archive.write_archive import SUFFIX
from orchestrator.adapters.store.atomic_files import sync_dir
from orchestrator.adapters.transport.open_transport import open_transport
from orchestrator.adapters.transport.transport import Completed
from orchestrator.core.base.command import Command
from orchestrator.core.base.errors import PreflightError, UsageError
from orchestrator.core.base.outcome import describe_outcome, has_succeeded
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.model.inventory import NodeSpec

CHUNK_BYTES = 1 << 20
ANSWER_BYTES = 4096
START_S = 30.0
# A link that is slower than this is no place for an archive.
LEAST_BYTES_PER_S = 1 << 20

# $1: where to, a file or a folder; $2: the file's name; $3: its digest. Answers with its path.
_RECEIVE = """set -eu
umask 077
target=$1
case $target in "~/"*) target=$HOME/${target#"~/"} ;; esac
case $target in *.tar.gz) ;; *) mkdir -p -- "$target"; target=$target/$2 ;; esac
part=$target.$$.part
trap 'rm -f -- "$part"' EXIT
cat >"$part"
sync -- "$part"
digest=$(sha256sum <"$part")
[ "${digest%% *}" = "$3" ] || { echo "the digest is another: $digest" >&2; exit 3; }
mv -f -- "$part" "$target"
trap - EXIT
printf '%s\\n' "$target"
"""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where an archive is moved: a path on ``node``, or here."""

    path: str
    node: NodeSpec | None = None


def parse_destination(text: str, nodes: Sequence[NodeSpec]) -> Destination:
    """``PATH``, or ``NODE:PATH`` with one of ``nodes``. Raises :class:`UsageError`."""
    name, colon, path = text.partition(":")
    if not colon or "/" in name:
        return Destination(str(Path(text).expanduser().absolute()))
    node = next((node for node in nodes if node.name == name), None)
    if node is None:
        what = f"no node of the cluster is called {name!r}"
        remedy = f"{did_you_mean(name, [each.name for each in nodes])} A path begins with ./ or /"
        raise UsageError(what, id="archive.destination", where=text, remedy=remedy)
    if not path:
        what, remedy = "the path on the node is missing", f"such as {name}:~/archives"
        raise UsageError(what, id="archive.destination", where=text, remedy=remedy)
    return Destination(path, node)


def move_archive(source: Path, destination: Destination) -> str:
    """Where ``source`` is then, ``NODE:PATH`` for a node; here it is removed when it is whole
    there. Raises ``OSError`` and :class:`PreflightError`; the source is kept then.
    """
    if destination.node is not None:
        there = (
            f"{destination.node.name}:{send_archive(source, destination.node, destination.path)}"
        )
    else:
        there = str(copy_archive(source, Path(destination.path)))
    if there != str(source):
        source.unlink()
    return there


def copy_archive(source: Path, target: Path) -> Path:
    """A second copy at ``target``, or below it if that does not end with ``SUFFIX``; its path.

    Raises ``OSError``; nothing is left at the target then.
    """
    path = target if target.name.endswith(SUFFIX) else target / source.name
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file, source.open("rb") as content:
            while chunk := content.read(CHUNK_BYTES):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if archive_digest(temporary) != archive_digest(source):
            raise OSError("what was written there is not what is read there")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_dir(path.parent)
    return path


def send_archive(source: Path, spec: NodeSpec, target: str) -> str:
    """A second copy on a node, likewise; its path there.

    Raises :class:`PreflightError` with what the node says, and ``OSError`` of the source.
    """
    words = ("sh", "-c", _RECEIVE, "sh", target, source.name, archive_digest(source))
    limit_s = START_S + source.stat().st_size / LEAST_BYTES_PER_S
    with source.open("rb") as content:
        done = asyncio.run(_feed(spec, Command(argv=words), content, limit_s))
    if not has_succeeded(done.outcome):
        said = _printable(done.stderr)
        raise PreflightError(
            f"the archive did not reach {spec.name}:{target}",
            id="archive.send",
            where=spec.name,
            why=f"the command there {describe_outcome(done.outcome)}" + (f": {said}" * bool(said)),
            remedy=f"it is kept here: {source}",
        )
    return _printable(done.stdout)


async def _feed(spec: NodeSpec, command: Command, content: BinaryIO, limit_s: float) -> Completed:
    transport = await open_transport(spec)
    try:
        return await transport.run(
            command, stdin=content, timeout_s=limit_s, limit_bytes=ANSWER_BYTES
        )
    finally:
        await transport.close()


def _printable(said: bytes) -> str:
    """What a node says, in one line."""
    text = said.decode("utf-8", "replace").strip()
    return "".join(char if char.isprintable() else " " for char in text)
