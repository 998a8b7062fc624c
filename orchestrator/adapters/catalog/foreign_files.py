"""Reads host lists of other tools from files, for ``cluster import``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from orchestrator.adapters.catalog.catalog import read_bounded
from orchestrator.adapters.transport.ssh_config.places import (
    SYSTEM_FOLDER,
    include_pattern,
    matching_paths,
)
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.file_sizes import MAX_FILE_BYTES
from orchestrator.parsing.importers.ansible import Surroundings, parse_ansible
from orchestrator.parsing.importers.foreign_nodes import Imported, render_inventory
from orchestrator.parsing.importers.hostfile import parse_hostfile
from orchestrator.parsing.importers.recognise import refuse_other
from orchestrator.parsing.importers.slurm import parse_slurm
from orchestrator.parsing.importers.slurm.slurm_records import Include, no_include
from orchestrator.parsing.importers.ssh_aliases import parse_ssh_config
from orchestrator.parsing.inputs.inventory_file import load_cluster

STANDARD_INPUT = "standard input"
MAX_VARS_FILES = 1000
MAX_VARS_DEPTH = 16
# In the order of Ansible, which takes the first that exists.
VARS_SUFFIXES = ("", ".yml", ".yaml", ".json")


@dataclass(frozen=True, slots=True)
class Inventory:
    """An inventory file's text, what of the foreign file was not taken, and what was chosen."""

    text: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...] = ()


def read_foreign(
    format: str, file: str, name: str, *, dialect: str | None = None, skip_unknown: bool = False
) -> Inventory:
    """Turn ``file`` (``-`` = standard input) of ``format`` into an inventory called ``name``.

    ``format`` is one of ``FORMATS``; ``dialect`` names the tool that a hostfile is for. Raises
    :class:`UsageError` for a file that cannot be read, is something else, holds no host, or one
    that is not understood and not to be skipped.
    """
    path = None if file == "-" else Path(file).expanduser()
    source = file if path else STANDARD_INPUT
    text = _text_of(path, format, source)
    refuse_other(text, source, format)
    match format:
        case "ansible":
            imported = parse_ansible(text, source, _surroundings(path), skip_unknown=skip_unknown)
        case "hostfile":
            imported = parse_hostfile(text, source, dialect, skip_unknown=skip_unknown)
        case "slurm":
            include = _beside(path) if path else no_include
            imported = parse_slurm(text, source, include, skip_unknown=skip_unknown)
        case _:
            imported = _ssh_config(text, path, source, skip_unknown=skip_unknown)
    inventory = render_inventory(imported, name, f"{format} {source}")
    load_cluster(inventory, f"inventory imported from {source}")
    return Inventory(inventory, imported.warnings, imported.notes)


def _text_of(path: Path | None, format: str, source: str) -> str:
    if path is None:
        return _decoded(sys.stdin.buffer.read(MAX_FILE_BYTES + 1), source)
    if _is_folder(path):
        remedy = "name a file in it"
        if format == "ansible":
            remedy += "; or import the output of: ansible-inventory -i FOLDER --list --yaml"
        raise UsageError("this is a folder", id="import.folder", where=source, remedy=remedy)
    return _decoded(read_bounded(path), source)


def _is_folder(path: Path) -> bool:
    """Also for a name that no file can have: whoever reads it says so."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _is_there(path: Path) -> bool:
    """A name that no file can have names none."""
    try:
        return path.exists()
    except OSError:
        return False


def _surroundings(path: Path | None) -> Surroundings:
    """What Ansible, started here, sees beside an inventory."""
    base = str(Path.cwd())
    if path is None:
        return Surroundings(base=base)
    folder = path.resolve().parent
    return Surroundings(
        base=base,
        file=str(path.absolute()),
        find_vars=lambda kind, name: vars_files(folder / kind, name),
    )


def vars_files(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    """(file, text) of the variables of a group or host: NAME, NAME.yml, ..., or files in NAME/."""
    if "/" in name or name in ("", ".", ".."):
        return
    for suffix in VARS_SUFFIXES:
        path = folder / f"{name}{suffix}"
        if _is_there(path):
            for file in _files_in(path) if path.is_dir() else [path]:
                yield str(file), _decoded(read_bounded(file), str(file))
            return


def _files_in(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Files with a suffix of Ansible or none, in alphabetical order, folders among them."""
    if depth > MAX_VARS_DEPTH:
        return
    for count, path in enumerate(sorted(folder.iterdir())):
        if count >= MAX_VARS_FILES:
            where = str(folder)
            raise UsageError(
                f"more than {MAX_VARS_FILES} files", id="import.too-large", where=where
            )
        if path.name.startswith(".") or path.name.endswith("~"):
            continue
        if path.is_dir():
            if not path.suffix:
                yield from _files_in(path, depth + 1)
        elif path.suffix in VARS_SUFFIXES:
            yield path


def _beside(path: Path) -> Include:
    """Reads what slurm.conf includes: a relative name starts at its folder."""
    folder = path.resolve().parent

    def include(name: str) -> tuple[str, str]:
        file = folder / name
        try:
            return str(file), _decoded(read_bounded(file), str(file))
        except UsageError as problem:
            raise ValueError(f"{file}: {problem.what}") from None

    return include


def _ssh_config(text: str, path: Path | None, source: str, *, skip_unknown: bool) -> Imported:
    usual = Path("~/.ssh/config").expanduser().absolute()
    named = None if path is None or path.absolute() == usual else str(path.absolute())
    of_user = path is None or not path.is_relative_to(SYSTEM_FOLDER)
    include = partial(_included, of_user=of_user)
    return parse_ssh_config(text, source, include, named, skip_unknown=skip_unknown)


def _included(pattern: str, *, of_user: bool) -> Iterator[tuple[str, str]]:
    for found in matching_paths(include_pattern(pattern, of_user=of_user)):
        yield str(found), _decoded(read_bounded(found), str(found))


def _decoded(data: bytes, source: str) -> str:
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(
            f"larger than {MAX_FILE_BYTES >> 10} KiB", id="import.too-large", where=source
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError("not UTF-8 text", id="import.encoding", where=source) from None
