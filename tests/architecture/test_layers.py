"""The layers: cli, view -> engine -> adapters -> parsing -> core, and what the core must not do."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

from tests.architecture.source import Module, called_name, calls, imports, package_modules

LAYERS = ("core", "parsing", "adapters", "engine", "view", "cli", "__main__")
IMPURE_MODULES = frozenset(
    "asyncio concurrent fcntl glob http io logging multiprocessing os random secrets select "
    "selectors shutil socket sqlite3 ssl subprocess tempfile threading time urllib uuid".split()
)
IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval", "__import__"})
IMPURE_METHODS = frozenset(
    "now utcnow today exists is_file is_dir iterdir glob rglob mkdir unlink rmdir touch stat "
    "resolve read_text read_bytes write_text write_bytes expanduser cwd home".split()
)


def layer_of(name: str) -> str:
    """The layer of a dotted name; empty for the package itself."""
    return name.partition(".")[2].partition(".")[0]


def core_modules() -> list[Module]:
    return [module for module in package_modules() if layer_of(module.name) == "core"]


def test_every_module_belongs_to_a_layer() -> None:
    """Nothing stands beside the layers, where no rule would reach it."""
    allowed = {*LAYERS, ""}

    assert not [m.where for m in package_modules() if layer_of(m.name) not in allowed]


def test_imports_point_to_the_right() -> None:
    """A module imports its own layer and those to its right, also inside functions."""
    wrong = [
        f"{module.at(node)} imports {name}"
        for module in package_modules()
        for node, name in imports(module)
        if name.startswith("orchestrator.") and not _points_right(module.name, name)
    ]

    assert wrong == []


def _points_right(importer: str, imported: str) -> bool:
    source, target = layer_of(importer), layer_of(imported)
    if target not in LAYERS:
        return True  # a name of the package itself, such as __version__
    return source in LAYERS and LAYERS.index(target) <= LAYERS.index(source)


def test_core_imports_the_pure_part_of_the_standard_library() -> None:
    """Decisions depend on nothing that is installed, reads a clock, or touches the world."""
    wrong = [
        f"{module.at(node)} imports {name}"
        for module in core_modules()
        for node, name in imports(module)
        if not _is_pure(name)
    ]

    assert wrong == []


def _is_pure(name: str) -> bool:
    top = name.partition(".")[0]
    if top == "orchestrator":
        return layer_of(name) == "core"
    return top in sys.stdlib_module_names - IMPURE_MODULES


def test_core_calls_nothing_that_touches_the_world() -> None:
    """No file, terminal or clock is reached through what needs no import or an innocent one."""
    wrong = [
        f"{module.at(call)} calls {ast.unparse(call.func)}"
        for module in core_modules()
        for call in calls(module)
        if called_name(call) in IMPURE_CALLS or _is_impure_method(call)
    ]

    assert wrong == []


def _is_impure_method(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Attribute) and call.func.attr in IMPURE_METHODS


def test_core_data_is_frozen() -> None:
    """Every dataclass of the core is frozen and slotted."""
    wrong = [
        module.at(definition)
        for module in core_modules()
        for definition, options in _dataclasses(module)
        if not {"frozen", "slots"} <= options
    ]

    assert wrong == []


def _dataclasses(module: Module) -> Iterator[tuple[ast.ClassDef, set[str]]]:
    """Each dataclass with the names of its options that are on."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            call = decorator if isinstance(decorator, ast.Call) else ast.Call(decorator, [], [])
            if called_name(call).rpartition(".")[2] == "dataclass":
                yield node, {option.arg or "" for option in call.keywords if _is_true(option.value)}


def _is_true(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is True
