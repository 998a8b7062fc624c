"""Finds and reads inventories and workloads: project folder, then home, then what is bundled.

``--cluster X`` is a path when it holds ``/`` or ends in .yaml or .yml, else ``clusters/X.yaml``
below one of the three roots. ``--workload X`` is likewise a path to a folder or its workload.yaml,
else ``workloads/X/``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.adapters.store.bundled import bundled_root
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.sync.file_list import holds_home
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.model.inventory import Cluster
from orchestrator.core.model.workload import Job, Per, Workload
from orchestrator.parsing.inputs.inventory_file import load_cluster
from orchestrator.parsing.inputs.yaml_source import MAX_BYTES

if TYPE_CHECKING:
    from orchestrator.parsing.inputs.command_line import PythonCall

_SUFFIXES = (".yaml", ".yml")
_MAX_PARENTS = 64


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """A file that a name stands for; ``origin`` is project, home or bundled."""

    name: str
    origin: str
    path: Path


@dataclass(frozen=True, slots=True)
class Catalog:
    """What names mean here. ``roots`` maps an origin to a folder, first match first."""

    roots: Mapping[str, Path]
    environ: Mapping[str, str]

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], project: Path | None = None) -> Catalog:
        """The catalog of the working directory (or ``project``), ``$ORCHESTRATE_HOME``, bundled."""
        home = Layout.from_environment(environ).home
        roots = {"project": project or Path.cwd(), "home": home, "bundled": bundled_root()}
        return cls(roots, environ)

    def cluster(self, name: str) -> Cluster:
        """The cluster that ``name`` or path stands for, with its secrets read.

        Raises :class:`UsageError` for an unknown name (with the nearest) or an invalid file.
        """
        return self.read_cluster(self.find_cluster(name), secrets=True)

    def workload(self, name: str) -> Workload:
        """The workload that ``name`` or path stands for; its entry and requirements files exist.

        Raises :class:`UsageError` for an unknown name (with the nearest) or an invalid file.
        """
        workload = self.read_workload(self.find_workload(name))
        refuse_home(Path(workload.folder).resolve(), "a workload travels with its folder")
        for file in (workload.entry, workload.requirements):
            if file and not (Path(workload.folder) / file).is_file():
                what = f"{file!r} does not exist in {_shown(Path(workload.folder))}"
                raise UsageError(what, id="workload.missing-file", where=workload.source)
        return workload

    def find_cluster(self, name: str) -> Path:
        if _is_path(name):
            return Path(name).expanduser()
        return self._find("cluster", name, self.clusters())

    def find_workload(self, name: str) -> Path:
        if _is_path(name):
            path = Path(name).expanduser()
            return path if path.suffix in _SUFFIXES else path / "workload.yaml"
        return self._find("workload", name, self.workloads())

    def read_cluster(self, path: Path, *, secrets: bool = False) -> Cluster:
        """The inventory at ``path``; without ``secrets`` secret values stay empty."""
        environ = self.environ if secrets else None
        folder = str(path.absolute().parent)
        return load_cluster(read_bounded(path), _shown(path), folder=folder, environ=environ)

    def read_workload(self, path: Path) -> Workload:
        # Here, as below: commands that only need nodes start sooner without it.
        from orchestrator.parsing.inputs.workload_file import load_workload

        return load_workload(read_bounded(path), _shown(path), str(path.absolute().parent))

    def clusters(self) -> list[CatalogEntry]:
        """Every inventory that a name reaches, by name; one found earlier hides later ones."""
        return self._entries(
            "clusters", lambda path: path.stem if path.suffix in _SUFFIXES else None
        )

    def workloads(self) -> list[CatalogEntry]:
        """Every workload that a name reaches, by name; one found earlier hides later ones."""
        return [
            CatalogEntry(entry.name, entry.origin, entry.path / "workload.yaml")
            for entry in self._entries(
                "workloads",
                lambda path: path.name if (path / "workload.yaml").is_file() else None,
            )
        ]

    def _entries(self, kind: str, name_of: Callable[[Path], str | None]) -> list[CatalogEntry]:
        found: dict[str, CatalogEntry] = {}
        for origin, root in self.roots.items():
            for path in _children(root / kind):
                name = name_of(path)
                if name is not None:
                    found.setdefault(name, CatalogEntry(name, origin, path))
        return sorted(found.values(), key=lambda entry: entry.name)

    def _find(self, kind: str, name: str, entries: Sequence[CatalogEntry]) -> Path:
        by_name = {entry.name: entry.path for entry in entries}
        if name not in by_name:
            folders = dict.fromkeys(_shown(root / f"{kind}s") for root in self.roots.values())
            raise UsageError(
                f"unknown {kind} {name!r}",
                id=f"{kind}.unknown",
                why=f"searched {', '.join(folders)}",
                remedy=f"{did_you_mean(name, by_name)} (orchestrate {kind} list shows all)",
            )
        return by_name[name]


def open_script(
    words: Sequence[str],
    *,
    cwd: Path,
    workdir: Path | None = None,
    per: Per = Per.GPU,
    cpu: int = 1,
) -> Job:
    """A user's own script or command as a job; see :func:`script_job`.

    What travels is ``workdir``, else the git root around the script (around ``cwd`` for a program),
    else ``cwd``. Raises :class:`UsageError` for a script that does not exist, is not executable, or
    is outside ``workdir``.
    """
    from orchestrator.parsing.inputs.command_line import python_call
    from orchestrator.parsing.inputs.workload_file import python_job, script_job

    call = python_call(words) if words and words[0] else None
    script = _script_path(words, cwd) if call is None else _python_script(call, cwd)
    folder = find_project(cwd, workdir, script)
    relative: str | None = None
    if script is not None:
        if not script.is_relative_to(folder):
            what = f"{script} is outside {folder}, so it would not travel to the nodes"
            raise UsageError(what, id="run.script-outside", remedy="choose another --workdir")
        relative = script.relative_to(folder).as_posix()
    if call is None:
        return script_job(words, folder=str(folder), script=relative, per=per, cpu=cpu)
    root = _import_root(call, cwd.resolve(), folder)
    return python_job(call, folder=str(folder), script=relative, import_root=root, per=per, cpu=cpu)


def find_project(cwd: Path, workdir: Path | None = None, script: Path | None = None) -> Path:
    """The folder that travels; see :func:`open_script`. Raises :class:`UsageError`."""
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


def read_bounded(path: Path) -> bytes:
    """A regular file's content, at most one byte more than a configuration file may have.

    Raises :class:`UsageError` when it cannot be read.
    """
    try:
        # O_NONBLOCK: a FIFO in the place of a file must not hang the command.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UsageError("not a regular file", id="config.unreadable", where=_shown(path))
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"cannot be read: {why}", id="config.unreadable", where=_shown(path)
        ) from None


def _script_path(words: Sequence[str], cwd: Path) -> Path | None:
    """The file here that ``words[0]`` names; None for a program that only the nodes need to have.

    Whatever is written with a relative folder is a file of the project.
    """
    word = words[0] if words else ""
    if "/" not in word or Path(word).is_absolute():
        _refuse_bare_file(word, cwd)
        return None
    path = _existing(word, cwd)
    if path.is_dir():
        module = path.relative_to(cwd.resolve()) if path.is_relative_to(cwd.resolve()) else path
        remedy = f"-m {'.'.join(module.parts)} runs a package, else name a file in it"
        raise UsageError(f"{word} is a folder", id="run.no-script", remedy=remedy)
    if not os.access(path, os.X_OK):
        remedy = f"chmod +x {word}"
        raise UsageError(f"{word} is not executable", id="run.not-executable", remedy=remedy)
    return path


def _python_script(call: PythonCall, cwd: Path) -> Path | None:
    """The script here, which may be a folder or an archive, too; None for modules, code, and files
    that only the nodes have.
    """
    if call.flag:
        return None
    elsewhere = call.target.startswith("~") or Path(call.target).is_absolute()
    if call.interpreter and elsewhere and not Path(call.target).exists():
        return None
    return _existing(call.target, cwd)


def _existing(word: str, cwd: Path) -> Path:
    """The path of ``word``, links of its folders resolved. Raises :class:`UsageError`."""
    named = cwd / word
    path = named.parent.resolve() / named.name
    if not path.exists():
        siblings = [child.name for child in _children(path.parent) if child.is_file()]
        remedy = did_you_mean(path.name, siblings) if siblings else ""
        raise UsageError(f"script {word!r} does not exist", id="run.no-script", remedy=remedy)
    return path


def _refuse_bare_file(word: str, cwd: Path) -> None:
    """A bare word is looked up on the nodes' PATH, where a file that lies here will not be."""
    if not Path(word).suffix or not (cwd / word).is_file():
        return
    remedy = f"./{word} runs it from the project"
    if word.endswith(".ipynb"):
        remedy = f"jupyter nbconvert --to script {word}, then give the .py file"
    what = f"{word} is a file here, but a word without a folder is looked up on the nodes' PATH"
    raise UsageError(what, id="run.no-script", remedy=remedy)


def _import_root(call: PythonCall, cwd: Path, folder: Path) -> str:
    """Where in the project a module is imported from, relative to ``folder``."""
    from orchestrator.adapters.store.modules import module_root

    if call.flag != "-m":
        return ""
    roots = [root for root in (cwd, folder) if root.is_relative_to(folder)]
    root = module_root(call.target, roots)
    return "" if root in (None, folder) else root.relative_to(folder).as_posix()


def _project(script: Path | None, cwd: Path) -> Path:
    start = cwd.resolve() if script is None else script.parent
    for folder in [start, *start.parents][:_MAX_PARENTS]:
        if os.path.lexists(folder / ".git"):
            return folder
    inside = script is None or script.is_relative_to(cwd.resolve())
    return cwd.resolve() if inside else start


def _is_path(name: str) -> bool:
    return "/" in name or name in {".", ".."} or name.endswith(_SUFFIXES)


def _children(folder: Path) -> Iterator[Path]:
    try:
        yield from sorted(folder.iterdir())
    except OSError:
        return


def _shown(path: Path) -> str:
    """``path`` as people know it: relative when it is below the working directory."""
    absolute = path.absolute()
    here = Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute)
