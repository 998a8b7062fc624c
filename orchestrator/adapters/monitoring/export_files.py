"""Files for Prometheus, Grafana, KEDA and Kubernetes, written into a folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

from orchestrator.adapters.monitoring.dashboard_model import dashboard_json
from orchestrator.adapters.monitoring.dashboards import DASHBOARDS
from orchestrator.core.base.errors import UsageError

TARGET = "127.0.0.1:8765"
_PLACES = {
    "alerts.yaml": "prometheus/alerts.yaml",
    "prometheus.yaml": "prometheus/prometheus.yaml",
    "datasource.yaml": "grafana/provisioning/datasources/orchestrate.yaml",
    "dashboards.yaml": "grafana/provisioning/dashboards/orchestrate.yaml",
    "keda-scaledobject.yaml": "scaling/keda-scaledobject.yaml",
    "hpa.yaml": "scaling/hpa.yaml",
}


def monitoring_files(target: str = TARGET) -> Iterator[tuple[str, str]]:
    """(path below the folder, content). ``target``: where Prometheus finds ``orchestrate serve``;
    a host and a port, for it stands between quotes in a YAML file.
    """
    folder = files(__package__).joinpath("files")
    for name, place in _PLACES.items():
        yield place, folder.joinpath(name).read_text(encoding="utf-8").replace("@TARGET@", target)
    for dashboard in DASHBOARDS:
        text = json.dumps(dashboard_json(dashboard), indent=2) + "\n"
        yield f"grafana/dashboards/{dashboard.uid}.json", text


def export_monitoring(folder: Path, target: str = TARGET) -> list[Path]:
    """Write every file, replacing those of an earlier export; their paths.

    Raises :class:`UsageError` where one cannot be written.
    """
    written = []
    for place, content in monitoring_files(target):
        path = folder / place
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        except OSError as error:
            what = f"not written: {error.strerror or error}"
            remedy = "name a folder that you may write to"
            raise UsageError(what, id="monitor.export", where=path, remedy=remedy) from error
        written.append(path)
    return written
