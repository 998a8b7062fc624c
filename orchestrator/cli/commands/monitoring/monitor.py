"""``orchestrate monitor``: metrics, files for Prometheus and Grafana, the load of experts."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from orchestrator.cli.options.shared import json_option

if TYPE_CHECKING:
    from orchestrator.core.monitoring.expert_load import ExpertTable

_TARGET = re.compile(r"[A-Za-z0-9.-]{1,253}:\d{1,5}|\[[0-9A-Fa-f:.]{2,45}\]:\d{1,5}")


@click.group()
def monitor() -> None:
    """Metrics of runs, nodes, nights and history; files for Prometheus and Grafana."""


@monitor.command()
@click.option(
    "--textfile",
    metavar="FILE",
    help="Write there, as a whole or not at all, for node_exporter's textfile collector.",
)
def metrics(textfile: str | None) -> None:
    """Print the metrics of this home once, as Prometheus reads them.

    \b
    orchestrate monitor metrics --textfile /var/lib/node_exporter/orchestrate.prom
    """
    from orchestrator.adapters.monitoring.monitor import Monitor
    from orchestrator.adapters.monitoring.textfile import write_for_collector
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.core.base.errors import UsageError

    content = Monitor(Layout.from_environment(os.environ)).render(time.time()).content
    if textfile is None:
        sys.stdout.buffer.write(content)
        return
    try:
        write_for_collector(Path(textfile).absolute(), content)
    except OSError as error:
        what = f"the metrics could not be written: {error.strerror or error}"
        remedy = "name a file in a folder that exists"
        raise UsageError(what, id="monitor.textfile", where=textfile, remedy=remedy) from error


@monitor.command()
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--target",
    metavar="HOST:PORT",
    default="127.0.0.1:8765",
    show_default=True,
    help="Where Prometheus finds `orchestrate serve`.",
)
def export(folder: Path, target: str) -> None:
    """Write alert rules, dashboards, provisioning and scaling manifests into DIR."""
    from orchestrator.adapters.monitoring.export_files import export_monitoring
    from orchestrator.core.base.errors import UsageError

    if not _TARGET.fullmatch(target):
        what, remedy = f"no host and port: {target[:80]!r}", "write it as 127.0.0.1:8765"
        raise UsageError(what, id="monitor.target", where="--target", remedy=remedy)
    for path in export_monitoring(folder, target):
        click.echo(path)


@monitor.command()
@click.argument("source", metavar="SOURCE")
@json_option
def experts(source: str, as_json: bool) -> None:
    """Show how evenly tokens are spread over experts, layer by layer.

    SOURCE is a run of the workload moe, a dump of SGLang (.pt) or vLLM (.safetensors), a file with
    an engine's metrics, or their address, such as http://127.0.0.1:30000/metrics.
    """
    from dataclasses import asdict

    from orchestrator.cli.output import print_json, print_table
    from orchestrator.core.monitoring.expert_load import (
        busiest_and_idlest,
        layer_latency,
        table_loads,
        window_loads,
    )
    from orchestrator.view.tables.expert_table import expert_headings, expert_rows

    table = _read_experts(source)
    if not as_json:
        print_table(expert_headings(table), expert_rows(table))
        return
    counts = dict(zip(table.layers, table.counts, strict=True))
    for load in table_loads(table):
        busiest, idlest = busiest_and_idlest(counts[load.layer])
        windows = [asdict(each) for each in window_loads(table, load.layer)]
        latency = layer_latency(table, load.layer)
        more = {
            "of": table.of,
            "busiest": busiest,
            "idlest": idlest,
            "windows": windows,
            "latency_s": asdict(latency) if latency else None,
        }
        print_json("layer", {**asdict(load), **more})


def _read_experts(source: str) -> ExpertTable:
    """Of an address, a file or a run. Raises ``OrchestrateError``."""
    from orchestrator.adapters.monitoring import expert_sources
    from orchestrator.adapters.store.layout import Layout
    from orchestrator.adapters.store.run_list import find_run
    from orchestrator.core.base.errors import UsageError

    if source.startswith(("http://", "https://")):
        return expert_sources.fetch_expert_metrics(source)
    if Path(source).exists() or os.sep in source:
        return expert_sources.read_expert_file(Path(source))
    folder = find_run(Layout.from_environment(os.environ), source)
    path = expert_sources.find_telemetry(folder)
    if path is None:
        what = f"run {folder.run_id} has no {expert_sources.TELEMETRY}"
        remedy = "name a run of the workload moe that ended, a dump, or an engine's metrics"
        raise UsageError(what, id="monitor.experts", where=folder.path, remedy=remedy)
    return expert_sources.read_expert_file(path)
