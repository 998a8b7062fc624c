"""Where every variable of every node's ranks came from, for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from orchestrator.core.base.nodeset import fold_nodeset
from orchestrator.core.model.plan import NodePlan, Plan, Variable
from orchestrator.core.tuning.risky_settings import environment_digest
from orchestrator.parsing.replies.display_text import clean_line
from orchestrator.view.terminal.text import brief_text, count_noun

MAX_REASON = 400


def explain_lines(plan: Plan, nodes: Sequence[NodePlan], name: str = "") -> Iterator[str]:
    """``nodes`` one after the other, equal ones together; only the variable ``name`` if given."""
    if plan.assumed:
        yield "ASSUMED: nodes not contacted; only the inventory is known"
        yield ""
    for folded, node in _alike(nodes):
        ranks = count_noun(len(node.ranks), "rank")
        yield f"{folded}: {ranks}, environment of collectives {environment_digest(node)}"
        chosen = [v for v in node.env if name in ("", v.name)]
        yield from _block("set", chosen)
        yield from _block("left alone", [v for v in node.left if name in ("", v.name)])
        yield ""
    for warning in plan.warnings:
        yield f"warning: {brief_text(warning, MAX_REASON)}"


def _alike(nodes: Sequence[NodePlan]) -> Iterator[tuple[str, NodePlan]]:
    """Nodes whose ranks get the same for the same reasons, under their folded names."""
    groups: list[tuple[list[str], NodePlan]] = []
    for node in nodes:
        for names, first in groups:
            same = (first.env, first.left) == (node.env, node.left)
            if same and len(first.ranks) == len(node.ranks):
                names.append(node.name)
                break
        else:
            groups.append(([node.name], node))
    yield from ((fold_nodeset(names), first) for names, first in groups)


def _block(title: str, variables: Sequence[Variable]) -> Iterator[str]:
    if variables:
        yield f"  {title}"
    for variable in variables:
        value = f"={clean_line(str(variable.value))}" if variable.value else ""
        rule = f", rule {variable.rule}" if variable.rule else ""
        setting = f"{clean_line(variable.name)}{brief_text(value, MAX_REASON)}"
        yield f"    {setting}   [{variable.origin}{rule}]"
        yield f"      why: {brief_text(variable.reason, MAX_REASON)}"
        if variable.evidence:
            yield f"      seen: {brief_text(variable.evidence, MAX_REASON)}"
        if variable.reference:
            yield f"      see: {variable.reference}"
