"""Reads host lists of other tools from files, for ``cluster import``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.adapters.store.catalog import read_bounded
from orchestrator.adapters.transport.ssh_config.files import SYSTEM_FOLDER, matching_paths
from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.importers.ansible import parse_ansible
from orchestrator.parsing.importers.foreign_nodes import Imported, render
from orchestrator.parsing.importers.hostfile import parse_hostfile
from orchestrator.parsing.importers.slurm import parse_slurm
from orchestrator.parsing.importers.ssh_aliases import parse_ssh_config
from orchestrator.parsing.inputs.cluster import load_cluster
from orchestrator.parsing.inputs.yaml_source import MAX_BYTES

_PARSERS = {"ansible": parse_ansible, "hostfile": parse_hostfile, "slurm": parse_slurm}


@dataclass(frozen=True, slots=True)
class Inventory:
    """An inventory file's text, and what of the foreign file was not understood."""

    text: str
    warnings: tuple[str, ...]


def read_foreign(format: str, file: str, name: str) -> Inventory:
    """Turn ``file`` (``-`` = standard input) of ``format`` into an inventory called ``name``.

    ``format`` is ansible, hostfile, slurm or ssh-config. Raises :class:`UsageError` for a file that
    cannot be read or holds no host.
    """
    path = Path(file).expanduser()
    source = "standard input" if file == "-" else file
    data = sys.stdin.buffer.read(MAX_BYTES + 1) if file == "-" else read_bounded(path)
    text = _decoded(data, source)
    imported = _ssh_config(text, path, source) if format == "ssh-config" else None
    imported = imported or _PARSERS[format](text, source)
    inventory = render(imported, name, f"{format} {source}")
    load_cluster(inventory, f"inventory imported from {source}")
    return Inventory(inventory, imported.warnings)


def _ssh_config(text: str, path: Path, source: str) -> Imported:
    usual = path.absolute() == Path("~/.ssh/config").expanduser().absolute()
    named = None if usual or source == "standard input" else str(path.absolute())
    of_user = not path.is_relative_to(SYSTEM_FOLDER)
    return parse_ssh_config(text, source, partial(_included, of_user=of_user), named)


def _included(pattern: str, *, of_user: bool) -> Iterator[tuple[str, str]]:
    for found in matching_paths(pattern, of_user=of_user):
        yield str(found), _decoded(read_bounded(found), str(found))


def _decoded(data: bytes, source: str) -> str:
    if len(data) > MAX_BYTES:
        raise UsageError(f"larger than {MAX_BYTES >> 10} KiB", id="import.too-large", where=source)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError("not UTF-8 text", id="import.encoding", where=source) from None
