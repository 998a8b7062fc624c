"""``orchestrate monitor``: metrics, files for Prometheus and Grafana, the load of experts."""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

import click

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
