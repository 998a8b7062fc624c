"""What doctor found, as tables for people: checks down, nodes that are alike across."""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.base.nodeset import fold_nodeset
from orchestrator.core.doctor.check_model import Reading, State
from orchestrator.core.doctor.checkup import NOT_ASKED, Examination, readings_in
from orchestrator.view.tables.table_data import Table
from orchestrator.view.terminal.text import brief_text, count_noun

CELLS = {
    State.OK: "ok",
    State.WARN: "warn",
    State.FAIL: "FAIL",
    State.UNKNOWN: "?",
    State.NONE: "-",
}
MAX_COLUMNS = 12


def check_matrix(examined: Examination) -> Table:
    """Nodes with the same states share a column. Checks that apply nowhere are left out."""
    by_node: dict[str, list[Reading]] = {}
    for reading in examined.readings:
        by_node.setdefault(reading.node, []).append(reading)
    alike: dict[tuple[State, ...], list[str]] = {}
    for node, readings in by_node.items():
        alike.setdefault(tuple(reading.state for reading in readings), []).append(node)
    columns = list(alike.items())[:MAX_COLUMNS]
    checks = next(iter(by_node.values()), [])
    rows = tuple(
        (reading.name, *(CELLS[states[at]] for states, _ in columns), reading.check)
        for at, reading in enumerate(checks)
        if any(_says_something(readings[at]) for readings in by_node.values())
    )
    return Table(
        headings=("check", *(fold_nodeset(nodes) for _, nodes in columns), "id"), rows=rows
    )


def _says_something(reading: Reading) -> bool:
    """Whether a check applies to a node, and the node was there to be asked."""
    return reading.state is not State.NONE and reading.what != NOT_ASKED


def finding_lines(examined: Examination) -> Iterator[str]:
    """What is wrong, the gravest first: nodes, what was found, and one line of what to do. What a
    node that does not answer could not be asked is not listed.
    """
    alike: dict[tuple[State, str, str, str], list[str]] = {}
    for reading in readings_in(examined, State.FAIL, State.WARN, State.UNKNOWN):
        if reading.what == NOT_ASKED:
            continue
        key = (reading.state, reading.check, reading.what, reading.remedy)
        alike.setdefault(key, []).append(reading.node)
    for (state, check, what, remedy), nodes in alike.items():
        yield f"{CELLS[state]:<4} {fold_nodeset(nodes)}: {brief_text(what, 400)} ({check})"
        if state is not State.UNKNOWN:
            yield f"     next: {remedy}"


def verdict_line(examined: Examination) -> str:
    """The last line."""
    counts = [
        f"{examined.count(state)} {word}"
        for state, word in (
            (State.FAIL, "failed"),
            (State.WARN, "warned"),
            (State.UNKNOWN, "not measured"),
            (State.OK, "ok"),
        )
        if examined.count(state)
    ]
    nodes = len({reading.node for reading in examined.readings})
    return f"{examined.status}: {', '.join(counts)} on {count_noun(nodes, 'node')}"
