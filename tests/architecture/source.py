"""The project's own files, as the rules see them."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "orchestrator"
NODE_SIDE = PACKAGE / "node_agent"
KIT = ROOT / "workloads" / "orchestrate_kit"
_GENERATED = {"__pycache__", "build", "dist", "node_modules"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """One Python file and its syntax tree."""

    path: Path
    tree: ast.Module

    @property
    def where(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def name(self) -> str:
        """The dotted name under which it is imported."""
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def at(self, node: ast.stmt | ast.expr) -> str:
        """A place for people and editors."""
        return f"{self.where}:{node.lineno}"


@functools.cache
def files() -> tuple[Path, ...]:
    """Every file of the checkout that is not generated."""
    return tuple(sorted(_walk(ROOT)))


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        hidden = path.name.startswith(".") and path.name != ".ci"
        if hidden or path.name in _GENERATED or path.is_symlink():
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


@functools.cache
def modules(*folders: str) -> tuple[Module, ...]:
    """The Python programs and modules below these folders of the checkout."""
    inside = [path for path in files() if path.relative_to(ROOT).parts[0] in folders]
    return tuple(_module(path) for path in inside if _is_python(path))


@functools.cache
def _module(path: Path) -> Module:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    return Module(path=path, tree=tree)


def package_modules() -> tuple[Module, ...]:
    return modules("orchestrator")


def programs() -> tuple[Module, ...]:
    """Everything that runs outside the tests."""
    return modules("orchestrator", "scripts", "workloads")


def shell_scripts() -> Iterator[tuple[str, str]]:
    """Each shell program: where it is, and its text without comments."""
    for path in files():
        if path.suffix == ".sh" or (not path.suffix and _first_line(path).endswith("sh")):
            lines = [line.partition("# ")[0] for line in path.read_text().splitlines()]
            yield path.relative_to(ROOT).as_posix(), "\n".join(lines)


def _is_python(path: Path) -> bool:
    return path.suffix == ".py" or (not path.suffix and "python" in _first_line(path))


def _first_line(path: Path) -> str:
    with path.open("rb") as stream:
        start = stream.read(2) + stream.readline(80)
    return start.decode(errors="replace").strip() if start.startswith(b"#!") else ""


def imports(module: Module) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Every import statement with each dotted name it brings in, also those inside functions."""
    package = module.name if module.path.stem == "__init__" else module.name.rpartition(".")[0]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *base.split(".")])
            yield from ((node, f"{base.rstrip('.')}.{alias.name}") for alias in node.names)


def called_name(call: ast.Call) -> str:
    """``os.system`` for ``os.system(...)``; empty for what has no plain name."""
    parts: list[str] = []
    target: ast.expr = call.func
    while isinstance(target, ast.Attribute):
        parts.append(target.attr)
        target = target.value
    return ".".join([target.id, *reversed(parts)]) if isinstance(target, ast.Name) else ""


def calls(module: Module) -> Iterator[ast.Call]:
    """Every call in the module."""
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.Call))


def words(text: ast.Constant) -> str:
    """What a string of :func:`texts` says."""
    assert isinstance(text.value, str)
    return text.value


def texts(module: Module) -> Iterator[ast.Constant]:
    """Every string in the module that is not a docstring or a bare remark."""
    nodes = list(ast.walk(module.tree))
    # By identity, because an equal string may stand elsewhere.
    remarks = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    strings = (node for node in nodes if isinstance(node, ast.Constant))
    return (node for node in strings if isinstance(node.value, str) and id(node) not in remarks)
