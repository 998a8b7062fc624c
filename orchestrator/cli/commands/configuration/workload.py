"""``orchestrate workload``: list, show, schema."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

import click

from orchestrator.cli.output import plain_data, print_json, print_table
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.model.parameter_conflicts import condition_words, show_value
from orchestrator.core.model.workload import (
    Metric,
    Parameter,
    ParameterRule,
    ParameterValue,
    Workload,
)
from orchestrator.parsing.replies.display_text import clean_line


@click.group()
def workload() -> None:
    """List and show workloads."""


@workload.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_workloads(as_json: bool) -> None:
    """List the workloads that a name reaches: project, then home, then bundled."""
    from orchestrator.adapters.catalog.catalog import Catalog

    catalog = Catalog.from_environment(os.environ)
    rows = []
    for entry in catalog.workloads():
        try:
            found = catalog.read_workload(entry.path)
            shape, summary, error = found.shape.value, found.summary, None
        except OrchestrateError as refused:
            shape, summary, error = "", f"invalid: {refused.what.splitlines()[0]}", str(refused)
        record = {"name": entry.name, "origin": entry.origin, "path": str(entry.path)}
        rows.append({**record, "shape": shape, "summary": summary, "error": error})
    if as_json:
        for row in rows:
            print_json("workload", row)
        return
    headings = ("name", "origin", "shape", "summary")
    print_table(headings, [[str(row[heading]) for heading in headings] for row in rows])


@workload.command()
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(name: str, as_json: bool) -> None:
    """Show what workload NAME takes, reports and requires."""
    from orchestrator.adapters.catalog.catalog import Catalog

    found = Catalog.from_environment(os.environ).workload(name)
    if as_json:
        print_json("workload", plain_data(found))
        return
    _print_head(found)
    if found.parameters:
        print("\nparameters (--set NAME=VALUE)")
        print_table(
            ("name", "type", "default", "help"),
            [_parameter_row(item) for item in found.parameters.values()],
        )
    if found.rules:
        print("\nrules (checked before anything is contacted)")
        print_table(("where", "needs", "why"), [_rule_row(item, found) for item in found.rules])
    if found.presets:
        print("\npresets (--set preset=NAME)")
        rows = [(name, _settings_text(values)) for name, values in found.presets.items()]
        print_table(("name", "values"), rows)
    if found.metrics:
        print("\nmetrics")
        rows_of_metrics = [_metric_row(item) for item in found.metrics.values()]
        print_table(("name", "unit", "better", "required", "gate", "help"), rows_of_metrics)


@workload.command()
def schema() -> None:
    """Print the JSON Schema of workload.yaml."""
    from orchestrator.parsing.inputs.json_schema import workload_schema

    print(json.dumps(workload_schema(), indent=2))


def _print_head(found: Workload) -> None:
    print(clean_line(f"{found.name}: {found.summary}" if found.summary else found.name))
    print(clean_line(f"entry     {found.folder}/{found.entry}"))
    print(f"shape     {found.shape.value}")
    if found.samples is not None:
        source = found.samples
        lines = f"lines of the file {source.file}, else generated; at most {source.count}"
        print(f"samples   {lines}, in groups of {source.group}")
    print(f"ranks     one per {found.ranks.per.value}; {found.ranks.cpu} on a node without GPUs")
    print(clean_line(f"modules   {', '.join(found.modules) or 'none'}"))
    print(f"preset    {found.default_preset or 'none'} by default")
    if found.artifacts:
        print(clean_line(f"artifacts {', '.join(found.artifacts)}"))


def _parameter_row(parameter: Parameter) -> list[str]:
    from orchestrator.parsing.inputs.workloads.parameters import expected_text

    default = show_value(parameter.default)
    return [parameter.name, expected_text(parameter), default, parameter.help]


def _rule_row(rule: ParameterRule, of: Workload) -> list[str]:
    when, require = (condition_words(part, of.parameters) for part in (rule.when, rule.require))
    return [when or "always", require, rule.why]


def _metric_row(metric: Metric) -> list[str]:
    bounds = []
    if metric.gate is not None:
        bounds += [f">= {metric.gate.min:g}"] if metric.gate.min is not None else []
        bounds += [f"<= {metric.gate.max:g}"] if metric.gate.max is not None else []
    required = "yes" if metric.required else ""
    direction = metric.direction.value
    return [metric.name, metric.unit, direction, required, " and ".join(bounds), metric.help]


def _settings_text(values: Mapping[str, ParameterValue]) -> str:
    return " ".join(f"{name}={show_value(value)}" for name, value in values.items())
