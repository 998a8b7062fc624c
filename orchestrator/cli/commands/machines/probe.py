"""``orchestrate probe``: what the machines really have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from orchestrator.cli.node_queries import survey_options
from orchestrator.cli.options.shared import cluster_options, json_option

if TYPE_CHECKING:
    from orchestrator.core.model.inventory import Cluster
    from orchestrator.engine.oneshot.probe_nodes import Surveyed

SECTIONS = ("summary", "gpu", "ib", "net", "env", "all")
# Sections that show the ranks' interpreter, which takes longer to ask than all the rest.
WITH_PYTHON = frozenset({"env", "all"})


@click.command()
@cluster_options
@survey_options
@click.argument("section", type=click.Choice(SECTIONS), default="summary")
@json_option
def probe(
    section: str,
    *,
    cluster: str,
    nodes: str,
    connect_timeout: float,
    fanout: int,
    as_json: bool,
) -> int:
    """Ask every node once what it has: GPUs, links, adapters, network, system.

    \b
    summary  one row per kind of node
    gpu      each GPU's state, and how GPUs and adapters are connected
    ib       InfiniBand and RoCE ports, and direct access to GPU memory
    net      interfaces
    env      system, software, limits, disks, Xids
    all      all of these

    Needs no rights on the nodes; what could not be seen is said at the end, and shown as "?".
    Exits with 4 if a node could not be asked.
    """
    from orchestrator.adapters.transport.broker.find_broker import expect_connections
    from orchestrator.cli.load_cluster import load_cluster
    from orchestrator.core.base.errors import ExitCode

    selected = load_cluster(cluster, nodes)
    expect_connections(selected.workers)
    from orchestrator.cli.node_queries import take_survey  # while the broker imports, too

    answers = take_survey(
        selected,
        connect_timeout=connect_timeout,
        fanout=fanout,
        always_python=section in WITH_PYTHON,
    )
    code = ExitCode.PREFLIGHT if any(answer.error for answer in answers) else ExitCode.DONE
    if as_json:
        _show_json(selected, answers, code)
    else:
        _show_section(section, answers)
    return int(code)


def _show_section(section: str, answers: list[Surveyed]) -> None:
    from orchestrator.cli.node_queries import print_tables, tell_errors
    from orchestrator.view.tables.probe_tables import note_lines, probe_tables

    found = [answer.facts for answer in answers if answer.facts is not None]
    print_tables(list(probe_tables(found, section)))
    unseen = note_lines(found)
    if unseen:
        print("\nnot seen")
    for note in unseen:
        print(f"  {note}")
    tell_errors(answers)


def _show_json(selected: Cluster, answers: list[Surveyed], code: int) -> None:
    from orchestrator.cli.node_queries import error_record, failure_record, node_records
    from orchestrator.cli.output import plain_data, print_json

    for answer in answers:
        record = {
            "node": answer.node,
            "seconds": round(answer.seconds, 3),
            "facts": plain_data(answer.facts),
            "error": error_record(answer.error),
        }
        print_json("node", record)
    result = {
        "status": "failed" if code else "succeeded",
        "exit_code": int(code),
        "cluster": selected.name,
        "nodes": node_records(answers),
        "failure": failure_record(answers),
    }
    print_json("result", result)
