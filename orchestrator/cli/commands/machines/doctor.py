"""``orchestrate doctor``: are the machines well?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from orchestrator.cli.node_queries import survey_options
from orchestrator.cli.options.shared import FiniteRange, cluster_options, json_option

if TYPE_CHECKING:
    from orchestrator.adapters.store.past_looks import PastLooks
    from orchestrator.core.base.errors import OrchestrateError
    from orchestrator.core.doctor.check_model import PastLook, Subject
    from orchestrator.core.doctor.checkup import Examination
    from orchestrator.core.model.inventory import Cluster
    from orchestrator.engine.oneshot.probe_nodes import Surveyed

QUICK, TWO_MINUTES = "quick", "2min"


@click.command()
@cluster_options
@survey_options
@click.option(
    "--level",
    type=click.Choice([QUICK, TWO_MINUTES]),
    default=QUICK,
    show_default=True,
    help="quick: check once; 2min: check again after --watch and name error counters that grow.",
)
@click.option(
    "--watch",
    type=FiniteRange(1, 3600),
    default=90.0,
    show_default=True,
    metavar="SECONDS",
    help="Between the two looks of --level 2min.",
)
@click.option("--strict", is_flag=True, help="What could not be measured counts as failed.")
@json_option
def doctor(
    *,
    cluster: str,
    nodes: str,
    connect_timeout: float,
    fanout: int,
    level: str,
    watch: float,
    strict: bool,
    as_json: bool,
) -> int:
    """Check every node, nodes against each other, and the links between them; one line of what to
    do for each fault.

    Links are looked at by TCP: can each node open connections to the others? Whether collectives
    work over them is tried before the ranks of every run, and measured by `acceptance`.

    Changes nothing on the nodes and needs no rights there. What failed is kept on this machine for
    a month, so that faults that come back are named. What could not be measured is shown as "?"
    and is never ok. For what the machines can do, run the workload `acceptance`.

    Exits with 0 when no check failed, with 4 when one did (with --strict also when one could not
    be measured). The status is healthy, unproven (something was not measured) or unfit.
    """
    from orchestrator.adapters.transport.broker.find_broker import expect_connections
    from orchestrator.cli.load_cluster import load_cluster
    from orchestrator.cli.node_queries import look_at_links, take_survey
    from orchestrator.core.base.errors import ExitCode
    from orchestrator.core.doctor.check_model import Level
    from orchestrator.core.doctor.checkup import run_checks

    selected = load_cluster(cluster, nodes)
    expect_connections(selected.workers)

    def look() -> list[Surveyed]:
        return take_survey(
            selected, connect_timeout=connect_timeout, fanout=fanout, always_python=False
        )

    first = look()
    later: list[Surveyed] = []
    if level == TWO_MINUTES:
        click.echo(f"orchestrate: looking again in {watch:g} s", err=True)
        time.sleep(watch)
        later = look()
    mesh = look_at_links(selected, first, connect_timeout=connect_timeout, fanout=fanout)
    record = _open_record(selected)
    subjects = _make_subjects(selected, first, later, record.read())
    examined = run_checks(subjects, Level(level), mesh)
    _keep_looks(record, examined, subjects)
    bad = examined.status == "unfit" or (strict and examined.status != "healthy")
    code = ExitCode.PREFLIGHT if bad else ExitCode.DONE
    if as_json:
        _show_json(selected, examined, int(code))
    else:
        _show_examination(examined)
    return int(code)


def _open_record(selected: Cluster) -> PastLooks:
    import os

    from orchestrator.adapters.store.layout import Layout
    from orchestrator.adapters.store.past_looks import PastLooks

    return PastLooks(Layout.from_environment(os.environ).examinations, selected.name)


def _keep_looks(record: PastLooks, examined: Examination, subjects: list[Subject]) -> None:
    """For later examinations; that this one is not kept is no fault of the machines."""
    from orchestrator.core.doctor.checkup import looks_to_keep

    try:
        record.add(looks_to_keep(examined, subjects), time.time())
    except OSError as error:
        click.echo(f"orchestrate: this examination is not kept: {error}", err=True)


def _make_subjects(
    selected: Cluster,
    first: list[Surveyed],
    later: list[Surveyed],
    past: tuple[PastLook, ...] | None,
) -> list[Subject]:
    from orchestrator.core.doctor.check_model import Subject
    from orchestrator.core.doctor.checkup import looks_at

    again = {answer.node: answer.facts for answer in later}
    known = None if past is None else looks_at(past, [selected.node(one.node) for one in first])
    now = time.time()
    return [
        Subject(
            spec=selected.node(answer.node),
            facts=answer.facts,
            later=again.get(answer.node),
            error=_error_text(answer.error) if answer.error is not None else "",
            remedy=answer.error.remedy if answer.error is not None else "",
            past=None if known is None else known[answer.node],
            at=now,
        )
        for answer in first
    ]


def _error_text(error: OrchestrateError) -> str:
    return f"{error.what} ({error.why})" if error.why else error.what


def _show_examination(examined: Examination) -> None:
    from orchestrator.cli.node_queries import print_tables
    from orchestrator.view.tables.doctor_tables import check_matrix, finding_lines, verdict_line

    print_tables([check_matrix(examined)])
    print()
    for line in finding_lines(examined):
        print(line)
    print(verdict_line(examined))


def _show_json(selected: Cluster, examined: Examination, code: int) -> None:
    from orchestrator.cli.output import plain_data, print_json
    from orchestrator.core.doctor.check_model import State
    from orchestrator.core.doctor.checkup import readings_in

    for reading in examined.readings:
        print_json("check", plain_data(reading))
    failed = next(readings_in(examined, State.FAIL), None)
    failure = None
    if failed is not None:
        failure = {
            "id": failed.check,
            "node": failed.node,
            "rank": None,
            "cause": failed.what,
            "remedy": failed.remedy,
        }
    result = {
        "status": examined.status,
        "exit_code": code,
        "cluster": selected.name,
        "checks": {state.value: examined.count(state) for state in State},
        "failure": failure,
    }
    print_json("result", result)
