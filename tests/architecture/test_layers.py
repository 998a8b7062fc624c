"""Layers and folders: who may import whom, and what the core must not do.

``cli, view -> engine -> adapters -> parsing -> core``; the node agent stands beside them all.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator

import pytest

from tests.architecture.source import Module, called_name, calls, imports, package_modules

LAYERS = ("core", "parsing", "adapters", "engine", "view", "cli", "__main__")
NODE_AGENT = "node_agent"
# Inside a layer, too, imports point to the left only: a folder or file uses those before it.
FOLDERS = {
    "core": "base model tuning launchers containers planning kubernetes fabric captures sharing "
    "costs run diagnosis verdict history detection nightly suite doctor migration monitoring "
    "drill_promises",
    "parsing": "ssh_config inputs importers replies captures experts",
    "engine": "support node network sharing action_runner progress_watchdog run oneshot drills",
    "view": "terminal tables result progress",
    "cli": "output masking outermost options past_runs load_cluster load_request "
    "node_queries open_view coordinate stop_run detach log_options run_words start_detached "
    "ray_clusters torchx_plugin nights suites migrations commands main",
    "node_agent": "base process facts code slurm telemetry containers attempt hang rank_env "
    "kubernetes operations main oneshot_offer oneshot_probe stage0",
}
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
    allowed = {*LAYERS, NODE_AGENT, ""}

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
    if NODE_AGENT in {source, target}:
        # Nothing runs its code here; the adapter that ships it knows where its files are.
        return source == target or imported == f"orchestrator.{NODE_AGENT}"
    if target not in LAYERS:
        return True  # a name of the package itself, such as __version__
    return source in LAYERS and LAYERS.index(target) <= LAYERS.index(source)


@pytest.mark.parametrize("layer", FOLDERS)
def test_folders_of_a_layer_have_an_order(layer: str) -> None:
    """The table is the architecture: each folder uses only those before it, and all are in it."""
    order = FOLDERS[layer].split()
    inside = [m for m in package_modules() if layer_of(m.name) == layer and _folder(m.name)]

    assert {_folder(module.name) for module in inside} == set(order)
    assert [
        f"{module.at(node)} imports {name}"
        for module in inside
        for node, name in imports(module)
        if layer_of(name) == layer
        and _folder(name) in order
        and order.index(_folder(name)) > order.index(_folder(module.name))
    ] == []


def _folder(name: str) -> str:
    """The folder or file right below the layer."""
    return [*name.split("."), "", ""][2]


def test_no_file_imports_itself_by_way_of_others() -> None:
    """Not even lazily: what needs each other belongs into one file, or into a third below both."""
    known = {module.name for module in package_modules()}
    graph = {
        module.name: {_module(name, known) for _, name in imports(module)} & known - {module.name}
        for module in package_modules()
    }

    assert _circle(graph) == []


def _module(name: str, known: set[str]) -> str:
    return name if name in known else name.rpartition(".")[0]


def _circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules that are left when all have gone that import only modules that have gone."""
    left = dict(graph)
    while leaves := [name for name, used in left.items() if not used & left.keys()]:
        for name in leaves:
            del left[name]
    return sorted(left)


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
