"""``orchestrate cluster``: list, show, validate, import, schema."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable

import click

from orchestrator.cli.output import plain_data, print_json, print_table
from orchestrator.core.base.errors import OrchestrateError, UsageError
from orchestrator.core.base.nodeset import fold_nodeset
from orchestrator.core.model.inventory import Cluster, GpuSpec, NodeSpec, PythonKind, PythonSpec
from orchestrator.parsing.importers.recognise import FORMATS
from orchestrator.parsing.replies.display_text import clean_line
from orchestrator.view.terminal.text import brief_text

DIALECTS = ("openmpi", "mpich", "deepspeed")


@click.group()
def cluster() -> None:
    """List, show, check and import inventories."""


@cluster.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def list_clusters(as_json: bool) -> None:
    """List the clusters that a name reaches: project, then home, then bundled."""
    from orchestrator.adapters.catalog.catalog import Catalog

    catalog = Catalog.from_environment(os.environ)
    rows = []
    for entry in catalog.clusters():
        try:
            found = catalog.read_cluster(entry.path)
            workers, summary, error = str(len(found.workers)), found.summary, None
        except OrchestrateError as refused:
            workers, summary, error = "", f"invalid: {refused.what.splitlines()[0]}", str(refused)
        record = {"name": entry.name, "origin": entry.origin, "path": str(entry.path)}
        rows.append({**record, "workers": workers, "summary": summary, "error": error})
    if as_json:
        for row in rows:
            print_json("cluster", {**row, "workers": int(str(row["workers"] or 0))})
        return
    headings = ("name", "origin", "workers", "summary")
    print_table(headings, [[str(row[heading]) for heading in headings] for row in rows])


@cluster.command()
@click.argument("name")
@click.option("--nodes", default="", metavar="EXPR", help="Show only these nodes and GPUs.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def show(name: str, nodes: str, as_json: bool) -> None:
    """Show the nodes, groups and expectations of cluster NAME (or a file)."""
    found = select_nodes(_read_cluster(name), nodes)
    if as_json:
        print_json("cluster", plain_data(found))
        return
    print(clean_line(f"{found.name}: {found.summary}" if found.summary else found.name))
    print(clean_line(f"file {found.source}") + "\n")
    headings = ("nodes", "role", "reached by", "gpus", "python", "price/h", "groups")
    print_table(headings, _node_rows(found))
    if found.groups:
        print("\ngroups (--nodes @NAME)")
        print_table(
            ("name", "nodes"), [(name, fold_nodeset(m)) for name, m in found.groups.items()]
        )
    if found.expectations:
        print("\nexpectations: recorded by the owner, to be checked")
        rows = [(e.metric, f"{e.value:g}", e.unit, e.source) for e in found.expectations]
        print_table(("metric", "value", "unit", "source"), rows)


@cluster.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME|FILE...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def validate(names: tuple[str, ...], as_json: bool) -> None:
    """Check inventories by name or file, without contacting anything."""
    for name in names:
        found = _read_cluster(name)
        workers = len(found.workers)
        if as_json:
            checked = {"name": found.name, "path": found.source, "valid": True}
            print_json("validation", {**checked, "nodes": len(found.nodes), "workers": workers})
        else:
            print(
                f"{clean_line(found.source)}: valid (nodes: {len(found.nodes)}, workers: {workers})"
            )


@cluster.command("import")
@click.argument("format", type=click.Choice(tuple(FORMATS)))
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--name", default="imported", show_default=True, help="Name of the new cluster.")
@click.option("--dialect", type=click.Choice(DIALECTS), help="The tool that a hostfile is for.")
@click.option("--skip-unknown", is_flag=True, help="Leave out hosts that are not understood.")
def import_(format: str, file: str, name: str, dialect: str | None, skip_unknown: bool) -> None:
    """Turn FILE of another tool into an inventory on stdout; warnings go to stderr.

    FILE - reads standard input. Without --skip-unknown, a host that is not understood is an error.
    """
    from orchestrator.adapters.catalog.foreign_files import read_foreign

    if dialect and format != "hostfile":
        raise UsageError(
            f"--dialect has no meaning for {format}",
            id="import.dialect",
            remedy=f"orchestrate cluster import hostfile {file} --dialect {dialect}",
        )
    imported = read_foreign(format, file, name, dialect=dialect, skip_unknown=skip_unknown)
    for warning in imported.warnings:
        click.echo(f"warning: {brief_text(warning, 400)}", err=True)
    for note in imported.notes:
        click.echo(f"note: {brief_text(note, 400)}", err=True)
    print(imported.text, end="")


@cluster.command()
def schema() -> None:
    """Print the JSON Schema of inventory files."""
    from orchestrator.parsing.inputs.json_schema import cluster_schema

    print(json.dumps(cluster_schema(), indent=2))


def select_nodes(found: Cluster, expression: str) -> Cluster:
    from orchestrator.parsing.inputs.selection import select_nodes

    return select_nodes(found, expression)


def _read_cluster(name: str) -> Cluster:
    from orchestrator.adapters.catalog.catalog import Catalog

    catalog = Catalog.from_environment(os.environ)
    return catalog.read_cluster(catalog.find_cluster(name))


def _node_rows(found: Cluster) -> list[list[str]]:
    """One row for all nodes that differ in their names only."""
    alike: dict[tuple[str, ...], list[NodeSpec]] = {}
    for node in found.nodes:
        alike.setdefault(_node_cells(node, found.currency), []).append(node)
    return [[fold_nodeset(node.name for node in nodes), *cells] for cells, nodes in alike.items()]


def _node_cells(node: NodeSpec, currency: str) -> tuple[str, ...]:
    price = "" if node.price_per_hour is None else f"{node.price_per_hour:g} {currency}"
    return (
        node.role.value,
        _route_text(node),
        _gpus_text(node.gpus),
        _python_text(node.python),
        price,
        " ".join(node.groups),
    )


def _route_text(node: NodeSpec) -> str:
    if node.transport.value == "local":
        return "this machine"
    ssh = node.ssh
    # A name that is its own alias is not repeated, so that nodes alike fold into one row.
    host = "NAME" if ssh.host == node.name else ssh.host
    user = f"{ssh.user}@" if ssh.user else ""
    port = f":{ssh.port}" if ssh.port else ""
    jump = f" via {ssh.jump}" if ssh.jump else ""
    return f"{_transport_text(node)} {user}{host}{port}{jump}"


def _transport_text(node: NodeSpec) -> str:
    """With what was chosen for ``auto``, and why."""
    from orchestrator.adapters.transport.choose_transport import choose_transport

    kind, reason = choose_transport(node)
    return f"{kind.value} (for {reason})" if reason else kind.value


def _gpus_text(gpus: GpuSpec) -> str:
    count = "as found" if gpus.count is None else str(gpus.count)
    words = [count, *([gpus.type] if gpus.type else [])]
    if gpus.indices is not None:
        words.append(f"only {_index_ranges(gpus.indices)}")
    return " ".join(words)


def _index_ranges(indices: Iterable[int]) -> str:
    return fold_nodeset(f"g{index}" for index in indices).removeprefix("g").strip("[]")


def _python_text(python: PythonSpec) -> str:
    if python.kind is PythonKind.INTERPRETER:
        return python.value
    return f"{python.kind.value} {python.value}".strip()
