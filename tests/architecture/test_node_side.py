"""What travels to nodes runs on the Python that is there: 3.8 and newer, with nothing installed."""

from __future__ import annotations

import ast
import sys

import pytest

from tests.architecture.source import KIT, NODE_SIDE, Module, called_name, calls, imports, modules

OLDEST = (3, 8)
RANK_ENV = NODE_SIDE / "rank_env"
# In the standard library of the Python that runs this test, but not in that of 3.8.
NEWER_MODULES = frozenset({"graphlib", "tomllib", "zoneinfo"})
NEWER_NAMES = frozenset(
    "removeprefix removesuffix is_relative_to with_stem to_thread pairwise batched cache randbytes "
    "lcm nextafter bit_count TaskGroup ExceptionGroup".split()
)


def node_side() -> list[Module]:
    """The agent's modules and the workloads' kit."""
    every = modules("orchestrator", "workloads")
    return [m for m in every if m.path.is_relative_to(KIT) or m.path.is_relative_to(NODE_SIDE)]


@pytest.mark.parametrize("folder", [NODE_SIDE, KIT])
def test_the_rules_below_have_something_to_check(folder: object) -> None:
    """A renamed folder must not turn these tests into ones that cannot fail."""
    assert any(str(module.path).startswith(str(folder)) for module in node_side())


def test_the_syntax_is_that_of_the_oldest_python() -> None:
    """No match statement, no parenthesised context managers, no `except*`."""
    for module in node_side():
        ast.parse(module.path.read_text(), filename=module.where, feature_version=OLDEST)


def test_only_the_standard_library_is_imported() -> None:
    """Nothing needs to be installed on a node, and the node's side needs nothing of ours."""
    standard = sys.stdlib_module_names - NEWER_MODULES
    own = ("orchestrator.node_agent.", "workloads.orchestrate_kit.")
    wrong = [
        f"{module.at(node)} imports {name}"
        for module in node_side()
        if RANK_ENV not in module.path.parents  # runs under the ranks' interpreter: torch, ray
        for node, name in imports(module)
        if name.partition(".")[0] not in standard and not name.startswith(own)
    ]

    assert wrong == []


def test_no_newer_method_is_called() -> None:
    """Methods that the oldest Python lacks are not used: its syntax check would not see them."""
    wrong = [
        f"{module.at(call)} calls {ast.unparse(call.func)}"
        for module in node_side()
        for call in calls(module)
        if _is_newer(call)
    ]

    assert wrong == []


def _is_newer(call: ast.Call) -> bool:
    name = called_name(call).rpartition(".")[2]
    if isinstance(call.func, ast.Attribute):
        name = call.func.attr
    strict_zip = name == "zip" and any(option.arg == "strict" for option in call.keywords)
    return strict_zip or name in NEWER_NAMES


def test_annotations_are_not_evaluated() -> None:
    """`list[str]` and `X | None` in annotations need the future import on an old Python."""
    wrong = [
        module.where
        for module in node_side()
        if not any(name == "__future__.annotations" for _, name in imports(module))
        and any(_is_new_spelling(node) for node in ast.walk(module.tree))
    ]

    assert wrong == []


def _is_new_spelling(node: ast.AST) -> bool:
    """Whether this is an annotation that Python 3.8 could not evaluate."""
    annotation = getattr(node, "annotation", None) or getattr(node, "returns", None)
    if not isinstance(annotation, ast.expr):
        return False
    builtin = {"dict", "frozenset", "list", "set", "tuple", "type"}
    return any(
        isinstance(part, ast.BinOp)
        or (
            isinstance(part, ast.Subscript)
            and isinstance(part.value, ast.Name)
            and part.value.id in builtin
        )
        for part in ast.walk(annotation)
    )
