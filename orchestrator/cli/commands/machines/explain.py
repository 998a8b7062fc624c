"""``orchestrate explain``: where every variable of the ranks came from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from orchestrator.cli.options.job_options import job_options, pick_job
from orchestrator.cli.options.shared import json_option

if TYPE_CHECKING:
    from orchestrator.core.model.plan import NodePlan, Plan


@click.command(context_settings={"allow_interspersed_args": False})
@job_options
@click.option("--offline", is_flag=True, help="Contact no node; assume the inventory.")
@click.option("--node", metavar="NAME", help="Only this node.")
@click.option("--var", "name", default="", metavar="NAME", help="Only this variable.")
@json_option
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- SCRIPT ARGS...]")
def explain(
    words: tuple[str, ...],
    offline: bool,
    node: str | None,
    name: str,
    as_json: bool,
    **given: Any,
) -> int:
    """Show each variable of every node's ranks with value, rule, evidence and documentation.

    The same plan as that of plan and run; what is left alone on purpose is there, too, and why.
    Without a workload or a script, what any script on torch would get.
    """
    from orchestrator.cli.load_request import (
        assume_plan,
        load_request,
        makes_nodes,
        request_for_any_script,
    )
    from orchestrator.cli.output import print_json
    from orchestrator.engine.oneshot.interruptible import run_interruptibly
    from orchestrator.engine.oneshot.plan_only import preview
    from orchestrator.view.tables.explain_text import explain_lines

    options = pick_job(given)
    if options.workload or words:
        request = load_request(options, words, run_id="explained")
    else:
        request = request_for_any_script(options, run_id="explained")
    assumed = offline or makes_nodes(request)
    made = assume_plan(request) if assumed else run_interruptibly(preview(request))[0]
    nodes = _chosen_nodes(made, node)
    if not as_json:
        click.echo("\n".join(explain_lines(made, nodes, name)))
        return 0
    for share in nodes:
        print_json("node", _node_record(share, name))
    result = {
        "status": "succeeded",
        "exit_code": 0,
        "cluster": made.cluster,
        "assumed": made.assumed,
        "warnings": list(made.warnings),
        "failure": None,
    }
    print_json("result", result)
    return 0


def _chosen_nodes(made: Plan, node: str | None) -> list[NodePlan]:
    from orchestrator.core.base.errors import UsageError
    from orchestrator.core.base.suggest import did_you_mean

    if node is None:
        return list(made.nodes)
    names = [share.name for share in made.nodes]
    if node not in names:
        remedy = did_you_mean(node, names)
        raise UsageError(f"no node {node!r} in the plan", id="explain.node", remedy=remedy)
    return [made.node(node)]


def _node_record(share: NodePlan, name: str) -> dict[str, object]:
    from orchestrator.cli.output import plain_data
    from orchestrator.core.tuning.risky_settings import environment_digest

    return {
        "node": share.name,
        "digest": environment_digest(share),
        "set": plain_data([v for v in share.env if name in ("", v.name)]),
        "left": plain_data([v for v in share.left if name in ("", v.name)]),
    }
