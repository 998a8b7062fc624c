"""Finds and reads inventories and workloads: project folder, then home, then what is bundled.

``--cluster X`` is a path when it holds ``/`` or ends in .yaml or .yml, else ``clusters/X.yaml``
below one of the three roots. ``--workload X`` is likewise a path to a folder or its workload.yaml,
else ``workloads/X/``; ``--prices X`` a path, else ``prices/X.yaml``; a suite a path, else
``suites/X.yaml``; a playbook likewise, ``playbooks/X.yaml``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from orchestrator.adapters.cache.inventories import Inventories
from orchestrator.adapters.cache.validated_files import ValidatedFiles
from orchestrator.adapters.catalog.bundled import bundled_root
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.file_sizes import MAX_FILE_BYTES
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.model.inventory import Cluster

if TYPE_CHECKING:
    from orchestrator.core.migration.playbook import Playbook
    from orchestrator.core.model.prices import Prices
    from orchestrator.core.model.workload import Workload
    from orchestrator.core.suite.suite_model import Suite

_SUFFIXES = (".yaml", ".yml")
_FOLDERS = {"study": "studies"}
_LISTS = {
    "prices": "or name a file",
    "playbook": "or name a file",
    "study": "orchestrate model list shows all",
}


class CatalogEntry(NamedTuple):
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
        from orchestrator.adapters.catalog.project_folder import refuse_home

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
        inventories = Inventories(Layout.from_environment(self.environ).inventories)
        return inventories.load(read_bounded(path), _shown(path), folder=folder, environ=environ)

    def read_workload(self, path: Path) -> Workload:
        from orchestrator.core.model.workload import Workload

        data, source, folder = read_bounded(path), _shown(path), str(path.absolute().parent)

        def read() -> Workload:
            # Here, as below: commands that only need nodes start sooner without it.
            from orchestrator.parsing.inputs.workloads.workload_file import load_workload

            return load_workload(data, source, folder)

        return self._validated.load(
            Workload, data, read, names={"source": source, "folder": folder}
        )

    def prices(self, name: str) -> Prices:
        """The price list that ``name`` or path stands for.

        Raises :class:`UsageError` for an unknown name (with the nearest) or an invalid file.
        """
        from orchestrator.core.model.prices import Prices

        entries = self._entries("prices", _yaml_stem)
        path = Path(name).expanduser() if _is_path(name) else self._find("prices", name, entries)

        def read() -> Prices:
            from orchestrator.parsing.inputs.price_file import load_prices

            return load_prices(data, source)

        try:
            data, source = read_bounded(path), _shown(path)
            return self._validated.load(Prices, data, read, names={"source": source})
        except UsageError as error:
            raise _price_error(error) from None

    @property
    def _validated(self) -> ValidatedFiles:
        return ValidatedFiles(Layout.from_environment(self.environ).validated)

    def find_suite(self, name: str) -> Path:
        if _is_path(name):
            return Path(name).expanduser()
        return self._find("suite", name, self.suites())

    def read_suite(self, path: Path, shown: str = "") -> Suite:
        """The suite at ``path``, which errors call ``shown``; its workloads are found from here.

        Raises :class:`UsageError` that lists every problem.
        """
        from orchestrator.parsing.inputs.suites.suite_file import load_suite

        return load_suite(read_bounded(path), shown or _shown(path), cache(self.workload))

    def suites(self) -> list[CatalogEntry]:
        """Every suite that a name reaches, by name; one found earlier hides later ones."""
        return self._entries("suites", _yaml_stem)

    def find_playbook(self, name: str) -> Path:
        if _is_path(name):
            return Path(name).expanduser()
        return self._find("playbook", name, self._entries("playbooks", _yaml_stem))

    def read_playbook(self, path: Path) -> Playbook:
        """The playbook at ``path``. Raises :class:`UsageError` that lists every problem."""
        from orchestrator.parsing.inputs.migration.playbook_file import load_playbook

        return load_playbook(read_bounded(path), _shown(path))

    def clusters(self) -> list[CatalogEntry]:
        """Every inventory that a name reaches, by name; one found earlier hides later ones."""
        return self._entries("clusters", _yaml_stem)

    def workloads(self) -> list[CatalogEntry]:
        """Every workload that a name reaches, by name; one found earlier hides later ones."""
        return [
            CatalogEntry(entry.name, entry.origin, entry.path / "workload.yaml")
            for entry in self._entries(
                "workloads",
                lambda path: path.name if (path / "workload.yaml").is_file() else None,
            )
        ]

    def files(self, folder: str) -> list[CatalogEntry]:
        """Every YAML file that a name reaches in ``folder`` of the roots."""
        return self._entries(folder, _yaml_stem)

    def find_file(self, folder: str, kind: str, name: str) -> Path:
        """The one that ``name`` or path stands for. Raises :class:`UsageError` with the nearest."""
        if _is_path(name):
            return Path(name).expanduser()
        return self._find(kind, name, self.files(folder))

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
            folder = _FOLDERS.get(kind, f"{kind.removesuffix('s')}s")
            roots = (str((root / folder).absolute()) for root in self.roots.values())
            folders = dict.fromkeys(roots)
            known = _LISTS.get(kind, f"orchestrate {kind} list shows all")
            raise UsageError(
                f"unknown {kind} {name!r}",
                id=f"{kind}.unknown",
                why=f"searched {', '.join(folders)}",
                remedy=f"{did_you_mean(name, by_name)} ({known})",
            )
        return by_name[name]


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
            return file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"cannot be read: {why}", id="config.unreadable", where=_shown(path)
        ) from None


def _price_error(error: UsageError) -> UsageError:
    """``error`` with what to do next, whatever is wrong with a price list."""
    return UsageError(
        error.what,
        id=error.id,
        where=error.where,
        why=error.why or "--prices takes a YAML file of prices, or the name of one below prices/",
        remedy=error.remedy or "write it as docs/energy.md shows, or take --prices default",
    )


def absolute_name(name: str) -> str:
    """What ``name`` is called from any folder: a path as an absolute one, a name as it is."""
    return str(Path(name).expanduser().absolute()) if _is_path(name) else name


def _is_path(name: str) -> bool:
    return "/" in name or name in {".", ".."} or name.endswith(_SUFFIXES)


def _yaml_stem(path: Path) -> str | None:
    return path.stem if path.suffix in _SUFFIXES else None


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
