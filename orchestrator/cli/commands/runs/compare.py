"""``orchestrate compare``: two runs, or groups of runs, figure by figure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options.shared import FiniteRange, color_option, json_option, use_color

if TYPE_CHECKING:
    from orchestrator.core.history.comparing import ComparisonRules, RunsComparison
    from orchestrator.core.history.figure_gates import FigureGate


@click.command()
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.option("--gate", is_flag=True, help="Exit 5 on fail, invalid or missing.")
@click.option("--gates", metavar="FILE", help="Gates of your own, in YAML (docs/history.md).")
@click.option(
    "--tolerance",
    type=FiniteRange(0, 100, min_open=True),
    default=3.0,
    show_default=True,
    metavar="PERCENT",
    help="The least change that matters; noise makes it larger.",
)
@click.option("--across", metavar="PARTS", default="", help="Parts of the key that may differ.")
@click.option("--html", metavar="FILE", help="Also write a report with both runs in each chart.")
@color_option
@json_option
def compare(
    a: str,
    b: str,
    *,
    gate: bool,
    gates: str | None,
    tolerance: float,
    across: str,
    html: str | None,
    color: str,
    as_json: bool,
) -> int:
    """Compare B with A: runs (an id, a unique beginning, last), baselines, or last:N.

    Only like is compared with like: where the conditions differ, the verdict is invalid.
    """
    from orchestrator.cli.output import print_json, print_table
    from orchestrator.core.base.errors import ExitCode
    from orchestrator.core.verdict.result import Verdict
    from orchestrator.view.result import comparison_text as text
    from orchestrator.view.terminal.text import brief_text

    found = _compare(a, b, _rules(gates, tolerance, across), html)
    passed = found.verdict in {Verdict.PASS, Verdict.WARN}
    code = ExitCode.REGRESSION if gate and not passed else ExitCode.DONE
    if as_json:
        print_json("result", text.comparison_object(found, int(code)))
        return int(code)
    click.echo("\n".join(text.heading_lines(found)) + "\n")
    print_table(text.HEADINGS, text.comparison_rows(found))
    for line in _behind_configuration(found):
        click.echo(f"configuration, {brief_text(line)}")
    click.echo("\n" + "\n".join(text.closing_lines(found, color=use_color(color))), color=True)
    return int(code)


def _behind_configuration(found: RunsComparison) -> Iterator[str]:
    """What two digests stand for, where the first runs of both sides are still here."""
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.adapters.store.run_list import read_result
    from orchestrator.core.base.errors import UsageError
    from orchestrator.core.history.derive_key import configuration_differences
    from orchestrator.engine.oneshot.cleanup import read_request

    if not any(difference.part == "configuration" for difference in found.differences):
        return
    layout = Layout.from_environment(os.environ)
    sides = []
    for group in (found.a, found.b):
        folder = layout.run(group.runs[0].run_id)
        result = read_result(folder)
        with suppress(UsageError):
            if result is not None:
                sides.append((read_request(folder), result))
    if len(sides) == 2:
        yield from configuration_differences(*sides)


def _compare(a: str, b: str, rules: ComparisonRules, html: str | None) -> RunsComparison:
    from orchestrator.adapters.history.choose_runs import choose_pair, runs_for_noise
    from orchestrator.adapters.history.open_store import open_history
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.core.history.comparing import compare_groups

    store = open_history(Layout.from_environment(os.environ))
    first, second = choose_pair(store, a, b)
    found = compare_groups(first, second, runs_for_noise(store, first, second), rules)
    if html is not None:
        from orchestrator.adapters.report.comparison_report import write_comparison

        write_comparison(Path(html), found, store)
    return found


def _rules(gates: str | None, tolerance: float, across: str) -> ComparisonRules:
    from orchestrator.core.history.comparing import ComparisonRules

    return ComparisonRules(
        floor=tolerance / 100, across=_parts(across), gates=_read_gates(gates) if gates else ()
    )


def _parts(across: str) -> frozenset[str]:
    from orchestrator.core.base.errors import UsageError
    from orchestrator.core.base.suggest import did_you_mean
    from orchestrator.core.history.run_record import KEY_PARTS

    parts = [part.strip() for part in across.split(",") if part.strip()]
    for part in parts:
        if part not in KEY_PARTS:
            what = f"--across: the key has no part {part!r}"
            raise UsageError(what, id="usage.across", remedy=did_you_mean(part, KEY_PARTS))
    return frozenset(parts)


def _read_gates(name: str) -> tuple[FigureGate, ...]:
    from orchestrator.adapters.catalog.catalog import read_bounded
    from orchestrator.parsing.inputs.gate_file import load_gates

    return load_gates(read_bounded(Path(name)), name)
