"""Which folder travels to the nodes, and that it is not all that the user has."""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.adapters.sync.file_list import holds_home
from orchestrator.core.base.errors import UsageError

_MAX_PARENTS = 64


def find_project(cwd: Path, workdir: Path | None = None, script: Path | None = None) -> Path:
    """The folder that travels; see ``open_script``. Raises :class:`UsageError`."""
    if workdir is None:
        folder = _project(script, cwd)
        repository = os.path.lexists(folder / ".git")
        why = "it is the git repository around" if repository else "no git repository is around"
        refuse_home(folder, f"{why}; keys, tokens and all else there would travel")
        return folder
    folder = (cwd / workdir).resolve()
    if not folder.is_dir():
        raise UsageError(f"--workdir {workdir} is not a folder", id="run.workdir")
    if folder == Path(folder.anchor):
        refuse_home(folder, "it is all of this machine")
    return folder


def refuse_home(folder: Path, why: str) -> None:
    """Raise :class:`UsageError` if the user's home directory, or all of the machine, would travel.

    It holds keys, tokens and whatever else nobody means to copy to other machines.
    """
    if not holds_home(folder) and folder != Path(folder.anchor):
        return
    raise UsageError(
        "the folder that would travel to the nodes holds the home directory",
        id="run.home",
        where=folder,
        why=why,
        remedy="put the script and what it needs into a folder of its own, or name the folder that "
        "travels: --workdir DIR",
    )


def _project(script: Path | None, cwd: Path) -> Path:
    start = cwd.resolve() if script is None else script.parent
    for folder in [start, *start.parents][:_MAX_PARENTS]:
        if os.path.lexists(folder / ".git"):
            return folder
    inside = script is None or script.is_relative_to(cwd.resolve())
    return cwd.resolve() if inside else start
