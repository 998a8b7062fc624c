"""Grafana dashboards as their JSON: panels in rows of 24 columns, each with its queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

SOURCE = {"type": "prometheus", "uid": "orchestrate-prometheus"}
WIDTH, HEIGHT = 24, 8
SCHEMA_VERSION = 39  # of Grafana 10 and later, which convert older ones


@dataclass(frozen=True, slots=True)
class PanelQuery:
    """A PromQL expression, and how its series are named (``{{node}}``)."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """``kind``: timeseries, stat or table. ``unit`` in Grafana's names: s, bytes, watt, celsius,
    percentunit, Bps, or none.
    """

    title: str
    queries: tuple[PanelQuery, ...]
    unit: str = "none"
    kind: str = "timeseries"
    width: int = 12
    help: str = ""


@dataclass(frozen=True, slots=True)
class DashboardVariable:
    """A choice at the top of the page: the values of a label of a metric."""

    name: str
    metric: str
    label: str


@dataclass(frozen=True, slots=True)
class Dashboard:
    """``uid`` stays the same for ever, for links name it."""

    uid: str
    title: str
    panels: tuple[Panel, ...]
    variables: tuple[DashboardVariable, ...] = ()


def dashboard_json(dashboard: Dashboard) -> dict[str, Any]:
    """What Grafana's file provider reads."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["orchestrate"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_variable(variable) for variable in dashboard.variables]},
        "annotations": {"list": []},
        "links": [
            {
                "type": "dashboards",
                "title": "orchestrate",
                "tags": ["orchestrate"],
                "asDropdown": True,
            }
        ],
        "panels": list(_placed(dashboard.panels)),
    }


def _placed(panels: Sequence[Panel]) -> Iterator[dict[str, Any]]:
    x = y = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > WIDTH:
            x, y = 0, y + HEIGHT
        place = {"x": x, "y": y, "w": panel.width, "h": HEIGHT}
        yield {"id": number, "gridPos": place, **_panel(panel)}
        x += panel.width


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "title": panel.title,
        "description": panel.help,
        "type": panel.kind,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit}, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "instant": panel.kind == "table",
                "format": "table" if panel.kind == "table" else "time_series",
            }
            for number, query in enumerate(panel.queries)
        ],
    }


def _variable(variable: DashboardVariable) -> dict[str, Any]:
    query = f"label_values({variable.metric}, {variable.label})"
    return {
        "name": variable.name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": variable.name},
        "definition": query,
        "refresh": 2,
        "sort": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }
