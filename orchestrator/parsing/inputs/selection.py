"""``--nodes``: which nodes and GPUs of a cluster a run uses.

Terms, separated by commas, apply from left to right::

    gpu03  gpu[01-04]      these nodes, with all their declared GPUs
    @rack1                 the nodes of a group
    gpu01:0-3              GPUs 0 to 3 of a node; also gpu01:5, gpu01:[0-3,6], gpu[01-04]:0
    !gpu02  !@rack1        without these nodes
    !gpu01:3               without this GPU

An expression that begins with an exclusion starts from all workers, any other from none.
Coordinators run no rank, so they stay unless they are excluded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from orchestrator.core.base.errors import UsageError
from orchestrator.core.base.nodeset import NodeSetError, expand_nodeset, parse_numbers, split_terms
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.model.inventory import Cluster, NodeSpec, Role

MAX_EXPRESSION = 65_536
_MAX_GPUS = 64

# None = every GPU that the node has, however many that is.
_Gpus = frozenset[int] | None


@dataclass(frozen=True, slots=True)
class _Term:
    """One term of an expression; ``gpus`` None = it names whole nodes."""

    text: str
    column: int
    exclude: bool
    names: str
    gpus: frozenset[int] | None


def select_nodes(cluster: Cluster, expression: str) -> Cluster:
    """``cluster`` with only the selected nodes and GPUs.

    A blank expression selects everything. ``min_nodes`` is lowered to the number of selected
    workers: who names the nodes knows how many they are. Raises :class:`UsageError` for bad syntax,
    unknown names (with the nearest), GPUs that are not declared, and an empty selection.
    """
    if not expression.strip():
        return cluster
    terms = _parse_terms(expression)
    chosen: dict[str, _Gpus] = {}
    if terms[0].exclude:
        chosen = {node.name: _declared_gpus(node) for node in cluster.workers}
    dropped: set[str] = set()
    for term in terms:
        for name in _resolve_term(cluster, term, expression):
            node = cluster.node(name)
            if term.exclude:
                _exclude_node(node, term, chosen, expression)
                dropped |= {name} if term.gpus is None else set()
            else:
                _include_node(node, term, chosen, expression)
                dropped.discard(name)
    return _restrict_cluster(cluster, chosen, dropped, expression)


def _parse_terms(expression: str) -> list[_Term]:
    if len(expression) > MAX_EXPRESSION:
        raise _selection_error(
            "the expression is too long", "--nodes", "name groups in the inventory"
        )
    try:
        return [_parse_term(text, column) for column, text in split_terms(expression)]
    except NodeSetError as error:
        raise _selection_error(error.message, _mark_column(expression, error.column)) from None


def _parse_term(text: str, column: int) -> _Term:
    names, colon, gpus = text.removeprefix("!").strip().partition(":")
    if not names:
        raise NodeSetError("a node name is missing", column)
    numbers: frozenset[int] | None = None
    if colon:
        at = column + len(text) - len(gpus)
        inner = gpus[1:-1] if gpus.startswith("[") and gpus.endswith("]") else gpus
        numbers = frozenset(int(number) for number in parse_numbers(inner, at, _MAX_GPUS))
    return _Term(text, column, text.startswith("!"), names, numbers)


def _resolve_term(cluster: Cluster, term: _Term, expression: str) -> tuple[str, ...]:
    where = _mark_column(expression, term.column)
    if term.names.startswith("@"):
        group = term.names[1:]
        if group not in cluster.groups:
            raise _selection_error(
                f"unknown group {group!r}", where, did_you_mean(group, cluster.groups)
            )
        return cluster.groups[group]
    try:
        names = expand_nodeset(term.names)
    except NodeSetError as error:
        raise _selection_error(error.message, where) from None
    known = {node.name for node in cluster.nodes}
    for name in names:
        if name not in known:
            remedy = did_you_mean(name, known)
            if name.isdecimal():
                remedy = "several GPUs of one node go in brackets, as in node1:[0,2]"
            raise _selection_error(
                f"unknown node {name!r} in cluster {cluster.name}", where, remedy
            )
    return names


def _include_node(node: NodeSpec, term: _Term, chosen: dict[str, _Gpus], expression: str) -> None:
    declared = _declared_gpus(node)
    if term.gpus is None:
        chosen[node.name] = declared
        return
    if declared is not None:
        _check_declared(node, term, declared, expression)
    before = chosen.get(node.name, frozenset())
    chosen[node.name] = None if before is None else before | term.gpus


def _exclude_node(node: NodeSpec, term: _Term, chosen: dict[str, _Gpus], expression: str) -> None:
    before = chosen.get(node.name, frozenset())
    if term.gpus is None or node.name not in chosen:
        chosen.pop(node.name, None)
        return
    if before is None:
        remedy = "declare the node's gpus in the inventory, or name the GPUs to use"
        what = f"{node.name} does not declare how many GPUs it has, so none can be taken out"
        raise _selection_error(what, _mark_column(expression, term.column), remedy)
    _check_declared(node, term, _declared_gpus(node) or frozenset(), expression)
    chosen[node.name] = before - term.gpus
    if not chosen[node.name]:
        del chosen[node.name]


def _check_declared(node: NodeSpec, term: _Term, declared: frozenset[int], expression: str) -> None:
    missing = sorted((term.gpus or frozenset()) - declared)
    if missing:
        have = ", ".join(map(str, sorted(declared))) or "none"
        what = f"{node.name} has no GPU {missing[0]}"
        raise _selection_error(
            what, _mark_column(expression, term.column), f"declared GPUs: {have}"
        )


def _declared_gpus(node: NodeSpec) -> _Gpus:
    if node.gpus.indices is not None:
        return frozenset(node.gpus.indices)
    return None if node.gpus.count is None else frozenset(range(node.gpus.count))


def _restrict_cluster(
    cluster: Cluster, chosen: dict[str, _Gpus], dropped: set[str], expression: str
) -> Cluster:
    nodes = tuple(
        _with_gpus(node, chosen[node.name]) if node.name in chosen else node
        for node in cluster.nodes
        if node.name in chosen or (node.role is Role.COORDINATOR and node.name not in dropped)
    )
    workers = sum(node.role is Role.WORKER for node in nodes)
    if not workers:
        names = ", ".join(node.name for node in cluster.workers[:12])
        raise _selection_error(
            f"no worker of cluster {cluster.name} is selected",
            f"--nodes {expression}",
            f"workers: {names}",
        )
    kept = {node.name for node in nodes}
    groups = {
        group: members
        for group, names in cluster.groups.items()
        if (members := tuple(name for name in names if name in kept))
    }
    least = None if cluster.min_nodes is None else min(cluster.min_nodes, workers)
    return replace(cluster, nodes=nodes, groups=groups, min_nodes=least)


def _with_gpus(node: NodeSpec, gpus: _Gpus) -> NodeSpec:
    if gpus == _declared_gpus(node):
        return node
    indices = None if gpus is None else tuple(sorted(gpus))
    return replace(node, gpus=replace(node.gpus, indices=indices))


def _mark_column(expression: str, column: int) -> str:
    shown = expression if len(expression) <= 80 else expression[:77] + "..."
    return f"--nodes {shown} (column {column})"


def _selection_error(what: str, where: str, remedy: str = "") -> UsageError:
    return UsageError(what, id="usage.nodes", where=where, remedy=remedy)
