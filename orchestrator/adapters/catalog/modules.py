"""Where a module that is to be run with ``-m`` lies in the project, as Python would find it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.suggest import did_you_mean


def module_root(module: str, roots: Sequence[Path]) -> Path | None:
    """The first of ``roots`` that ``module`` can be imported from; None for one that is not of the
    project, which only the nodes need to have.

    Raises :class:`UsageError` for a name that cannot be one, and for a module that is missing in a
    package of the project.
    """
    parts = module.split(".")
    if not all(part.isidentifier() for part in parts):
        what = f"-m {module}: not the name of a module"
        remedy = _as_module(module) if module.endswith(".py") or "/" in module else ""
        raise UsageError(what, id="run.module", remedy=remedy)
    for root in roots:
        if _runs(root.joinpath(*parts)):
            return root
    for root in roots:
        if (root / parts[0] / "__init__.py").is_file():
            raise _missing(module, root)
    return None


def _runs(path: Path) -> bool:
    return path.with_name(f"{path.name}.py").is_file() or (path / "__main__.py").is_file()


def _missing(module: str, root: Path) -> UsageError:
    """Why a package of the project does not have it."""
    folder = root.joinpath(*module.split("."))
    if folder.is_dir():
        what = f"-m {module}: the package has no __main__.py"
        return UsageError(what, id="run.module", remedy=did_you_mean("__main__", _modules(folder)))
    while not folder.parent.is_dir():
        folder = folder.parent
    name, package = folder.name, folder.parent
    what = f"-m {module}: {package.relative_to(root)} has no module {name}"
    return UsageError(what, id="run.module", remedy=did_you_mean(name, _modules(package)))


def _modules(package: Path) -> list[str]:
    return sorted(path.stem for path in package.glob("*.py") if not path.stem.startswith("__"))


def _as_module(path: str) -> str:
    """A path was given where the name of a module belongs."""
    return f"-m {path.removesuffix('.py').strip('/').replace('/', '.')}, or {path} without -m"
