"""`--nodes`: names, groups, GPUs, exclusions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.inputs.inventory_file import load_cluster
from orchestrator.parsing.inputs.selection import select_nodes

CLUSTER = load_cluster(
    """
name: c
min_nodes: 3
nodes:
  - {name: head, role: coordinator, gpus: 0}
  - {name: 'g[1-3]', gpus: 4}
  - {name: part, gpus: {count: 8, indices: [4, 5, 6]}}
  - open
groups: {rack: 'g[2-3]', mixed: 'g1,part'}
""",
    "c.yaml",
)


def chosen(expression: str) -> dict[str, tuple[int, ...] | None]:
    """Selected workers with their GPU restriction."""
    return {node.name: node.gpus.indices for node in select_nodes(CLUSTER, expression).workers}


@pytest.mark.parametrize(
    "expression,expected",
    [
        ("g1", {"g1": None}),
        ("g[1-2]", {"g1": None, "g2": None}),
        ("g3, g1", {"g1": None, "g3": None}),
        ("@rack", {"g2": None, "g3": None}),
        ("@rack,g1:0", {"g1": (0,), "g2": None, "g3": None}),
        ("g1:0-2", {"g1": (0, 1, 2)}),
        ("g1:[0,2-3]", {"g1": (0, 2, 3)}),
        ("g1:0,g1:2", {"g1": (0, 2)}),
        ("g1:0,g1", {"g1": None}),
        ("g[1-2]:1", {"g1": (1,), "g2": (1,)}),
        ("g1:0-3", {"g1": None}),
        ("@rack,!g2", {"g3": None}),
        ("g1,!g1:3", {"g1": (0, 1, 2)}),
        ("part", {"part": (4, 5, 6)}),
        ("part,!part:5", {"part": (4, 6)}),
        ("open:9", {"open": (9,)}),
        ("!g2", {"g1": None, "g3": None, "part": (4, 5, 6), "open": None}),
        ("!@rack,!open,!part", {"g1": None}),
        ("!@mixed,!open,g1", {"g1": None, "g2": None, "g3": None}),
        ("!g1:[0-3],!open,!part", {"g2": None, "g3": None}),
    ],
)
def test_terms_apply_from_left_to_right(
    expression: str, expected: dict[str, tuple[int, ...] | None]
) -> None:
    """Names add, exclusions take away; a leading exclusion starts from all workers."""
    assert chosen(expression) == expected


def test_blank_means_everything() -> None:
    """No expression changes nothing."""
    assert select_nodes(CLUSTER, "  ") is CLUSTER


def test_a_coordinator_stays_unless_excluded() -> None:
    """It runs no rank, so naming workers does not drop it."""
    assert "head" in {node.name for node in select_nodes(CLUSTER, "g1").nodes}
    assert "head" not in {node.name for node in select_nodes(CLUSTER, "!head").nodes}


def test_what_depends_on_the_nodes_follows() -> None:
    """Groups lose the nodes that are gone, and min_nodes is never more than what is left."""
    selected = select_nodes(CLUSTER, "g2,g1")

    assert selected.groups == {"rack": ("g2",), "mixed": ("g1",)}
    assert selected.min_nodes == 2
    assert [node.name for node in selected.workers] == ["g1", "g2"]


@pytest.mark.parametrize(
    "expression,expected",
    [
        ("g9", "(column 1): unknown node 'g9' in cluster c\n  next: did you mean 'g"),
        ("g1,@rak", "(column 4): unknown group 'rak'\n  next: did you mean 'rack'?"),
        ("g1:0,2", "several GPUs of one node go in brackets, as in node1:[0,2]"),
        ("g1:7", "g1 has no GPU 7\n  next: declared GPUs: 0, 1, 2, 3"),
        ("part:0", "part has no GPU 0\n  next: declared GPUs: 4, 5, 6"),
        ("!part:0", "part has no GPU 0"),
        ("!open:1", "open does not declare how many GPUs it has"),
        ("g1:", "expected a number or a range"),
        ("g1:x", "(column 4): expected a number or a range like 1-4, found 'x'"),
        ("g1:[0", "'[' is never closed"),
        ("g1,,g2", "(column 4): a name is missing"),
        ("!", "a node name is missing"),
        ("g 1", "' ' cannot be part of a node name"),
        ("g1,!g1", "no worker of cluster c is selected\n  next: workers: g1, g2, g3, part, open"),
        ("head", "no worker of cluster c is selected"),
        ("!g[1-3],!part,!open", "no worker of cluster c is selected"),
        ("a" * 70_000, "too long"),
    ],
)
def test_wrong_expressions_are_usage_errors(expression: str, expected: str) -> None:
    """The column, what is wrong, and the nearest name."""
    with pytest.raises(UsageError) as caught:
        select_nodes(CLUSTER, expression)

    assert expected in str(caught.value)
    assert caught.value.exit_code == 2


@given(st.text(alphabet="g123part@ck!:[],-0 ", max_size=30))
def test_any_expression_selects_workers_or_is_refused(expression: str) -> None:
    """A selection is never empty and never holds GPUs that are not declared."""
    try:
        selected = select_nodes(CLUSTER, expression)
    except UsageError:
        return
    assert selected.workers
    for node in selected.workers:
        if node.gpus.indices is not None and node.gpus.count is not None:
            assert set(node.gpus.indices) <= set(range(node.gpus.count))
            assert node.gpus.indices
