"""What probe and doctor share: options, asking the nodes, and their records for machines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from orchestrator.cli.options.shared import FiniteRange

if TYPE_CHECKING:
    from orchestrator.core.base.errors import OrchestrateError
    from orchestrator.core.doctor.check_model import Mesh
    from orchestrator.core.model.inventory import Cluster
    from orchestrator.engine.oneshot.probe_nodes import Surveyed
    from orchestrator.view.tables.table_data import Table

Command = TypeVar("Command", bound=Callable[..., Any])


def survey_options(command: Command) -> Command:
    """How nodes are asked."""
    for option in (
        click.option("--fanout", type=click.IntRange(1, 4096), default=128, show_default=True),
        click.option("--connect-timeout", type=FiniteRange(1), default=20.0, show_default=True),
    ):
        command = option(command)
    return command


def take_survey(
    selected: Cluster, *, connect_timeout: float, fanout: int, always_python: bool
) -> list[Surveyed]:
    """One answer for each node that may run ranks."""
    from orchestrator.engine.oneshot.interruptible import run_interruptibly
    from orchestrator.engine.oneshot.probe_nodes import SurveyLimits, survey

    limits = SurveyLimits(connect_s=connect_timeout, width=fanout)
    return run_interruptibly(survey(selected.workers, limits, always_python=always_python))


def look_at_links(
    selected: Cluster, answers: Sequence[Surveyed], *, connect_timeout: float, fanout: int
) -> Mesh | None:
    """Which of the nodes that answered cannot reach each other; None for a single machine."""
    from orchestrator.engine.oneshot.interruptible import run_interruptibly
    from orchestrator.engine.oneshot.link_probe import survey_links
    from orchestrator.engine.oneshot.probe_nodes import SurveyLimits

    limits = SurveyLimits(connect_s=connect_timeout, width=fanout)
    return run_interruptibly(survey_links(selected.workers, answers, limits))


def print_tables(tables: Sequence[Table]) -> None:
    """One below the other, each with its title."""
    from orchestrator.cli.output import print_table

    for number, table in enumerate(tables):
        if number:
            print()
        if table.title:
            print(table.title)
        print_table(table.headings, table.rows)


def tell_errors(answers: Sequence[Surveyed]) -> None:
    """Nodes that could not be asked, on stderr."""
    from orchestrator.view.terminal.text import clean_paragraph

    for answer in answers:
        if answer.error is not None:
            said = str(answer.error)
            place = "" if answer.node in said else f"{answer.node}: "
            click.echo(f"orchestrate: {clean_paragraph(place + said)}", err=True)


def error_record(error: OrchestrateError | None) -> dict[str, str] | None:
    """An error for machines."""
    if error is None:
        return None
    return {"id": error.id, "what": error.what, "why": error.why, "remedy": error.remedy}


def node_records(answers: Sequence[Surveyed]) -> list[dict[str, str]]:
    """The ``nodes`` of a result."""
    return [
        {
            "name": answer.node,
            "state": "probed" if answer.error is None else "failed",
            "reason": "" if answer.error is None else answer.error.what,
        }
        for answer in answers
    ]


def failure_record(answers: Sequence[Surveyed]) -> dict[str, Any] | None:
    """The first node that could not be asked, as the ``failure`` of a result."""
    for answer in answers:
        if (error := answer.error) is not None:
            cause, remedy = error.what, error.remedy
            return {
                "id": error.id, "node": answer.node, "rank": None, "cause": cause, "remedy": remedy
            }  # fmt: skip
    return None
