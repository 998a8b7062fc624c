"""What ``monitor export`` writes: read by the owners' tools, and held against the catalogue."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from orchestrator.adapters.monitoring.export_files import export_monitoring
from orchestrator.adapters.monitoring.exposition import render_samples
from orchestrator.core.monitoring.catalogue import METRICS
from orchestrator.core.monitoring.metric import MetricFamily, MetricKind, Sample
from tests.monitoring.alert_cases import CASES, FIRST_BAD, SCRAPE_S, Case, series

SCHEMAS = Path(__file__).parent / "schemas"
NAME = re.compile(r"\borchestrate_\w+")
SELECTOR = re.compile(r"(orchestrate_\w+)\{([^}]*)\}")
LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
SHOWN = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")
FROM_PROMETHEUS = {"instance", "job"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export")
    export_monitoring(path, "[::1]:8765")
    return path


def promtool(*words: str | Path, text: bytes | None = None) -> str:
    """What it prints; it must succeed. Skips without the tool, unless in CI."""
    tool = shutil.which("promtool")
    if tool is None:
        if os.environ.get("CI") == "true":
            pytest.fail("promtool is missing: apt-get install prometheus")
        pytest.skip("needs promtool (Debian: prometheus)")
    done = subprocess.run([tool, *words], input=text, capture_output=True, timeout=120, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def load_yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text())


def rules(folder: Path) -> list[dict[str, Any]]:
    groups = load_yaml(folder / "prometheus" / "alerts.yaml")["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboards(folder: Path) -> list[Any]:
    return [
        json.loads(path.read_text()) for path in sorted(folder.glob("grafana/dashboards/*.json"))
    ]


def targets(folder: Path) -> Iterator[dict[str, Any]]:
    for dashboard in dashboards(folder):
        for panel in dashboard["panels"]:
            yield from panel["targets"]


def declared(name: str) -> MetricFamily:
    """The metric that a name in an expression belongs to. Fails where there is none."""
    base = re.sub(r"_(bucket|sum|count)$", "", name)
    metric = METRICS.get(name) or METRICS.get(base)
    assert metric is not None, f"{name} is not exported"
    assert name == metric.name or metric.kind is MetricKind.HISTOGRAM
    return metric


def check_expression(expr: str) -> set[str]:
    """Every metric and label is one that is exported; the labels that may come out of it."""
    metrics = [declared(name) for name in NAME.findall(expr)]
    for name, inside in SELECTOR.findall(expr):
        known = {*declared(name).labels, *FROM_PROMETHEUS, "le"}
        assert set(LABEL.findall(inside)) <= known, expr
    return {label for metric in metrics for label in metric.labels} | FROM_PROMETHEUS


def test_every_metric_in_a_rule_is_exported_and_its_labels_exist(folder: Path) -> None:
    for rule in rules(folder):
        labels = check_expression(rule["expr"])
        told = " ".join(rule["annotations"].values())
        assert set(SHOWN.findall(told)) - {"value"} <= labels, rule["alert"]


def test_every_metric_in_a_panel_is_exported_and_its_labels_exist(folder: Path) -> None:
    found = list(targets(folder))
    assert len(dashboards(folder)) == 5
    for target in found:
        labels = check_expression(target["expr"])
        assert set(SHOWN.findall(target["legendFormat"])) <= labels, target["expr"]
    for dashboard in dashboards(folder):
        for variable in dashboard["templating"]["list"]:
            name, label = re.findall(r"\w+", variable["definition"])[1:]
            assert label in declared(name).labels


def test_every_metric_is_shown_somewhere(folder: Path) -> None:
    """A metric that no panel, rule or manifest uses is one that nobody looks at."""
    text = "".join(path.read_text() for path in folder.rglob("*.*"))
    unused = {"orchestrate_build_info", "orchestrate_collect_seconds"}
    used = {declared(name).name for name in NAME.findall(text)}

    kept = {
        name for name in METRICS if name.startswith(("orchestrate_last_run", "orchestrate_nightly"))
    }
    assert set(METRICS) - used - kept <= unused | {
        "orchestrate_run_start_timestamp_seconds",
        "orchestrate_run_last_event_timestamp_seconds",
    }


def test_panels_do_not_overlap_and_ids_are_unique(folder: Path) -> None:
    for dashboard in dashboards(folder):
        cells = [
            (x, y)
            for panel in dashboard["panels"]
            for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
            for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
        ]
        assert len(cells) == len(set(cells))
        assert max(x for x, _ in cells) < 24


@pytest.mark.processes
def test_promtool_accepts_rules_configuration_and_expressions(folder: Path) -> None:
    assert "SUCCESS" in promtool("check", "rules", folder / "prometheus" / "alerts.yaml")
    assert "SUCCESS" in promtool("check", "config", folder / "prometheus" / "prometheus.yaml")
    panels = [
        {"record": f"panel:{number}", "expr": re.sub(r"\$\w+", ".*", target["expr"])}
        for number, target in enumerate(targets(folder))
    ]
    file = folder / "panels.json"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": panels}]}))
    try:
        assert f"{len(panels)} rules found" in promtool("check", "rules", file)
    finally:
        file.unlink()


@pytest.mark.processes
def test_promtool_finds_no_fault_with_the_metrics() -> None:
    """Names, types and help, of every metric that there is."""
    answer = render_samples(_one_of_each())

    assert promtool("check", "metrics", text=answer.content) == ""


def _one_of_each() -> Iterator[Sample]:
    for metric in METRICS.values():
        labels = ["x"] * len(metric.labels)
        if metric.kind is MetricKind.HISTOGRAM:
            yield metric.histogram([1.0] * (len(metric.bounds) + 1), 2.0, *labels)
        else:
            yield metric.sample(1.0, *labels)


@pytest.mark.processes
def test_every_alert_fires_within_two_scrapes_and_not_before(folder: Path, tmp_path: Path) -> None:
    """Those with a patience fire when it is over. promtool is the judge."""
    content = load_yaml(folder / "prometheus" / "alerts.yaml")
    for group in content["groups"]:
        for rule in group["rules"]:
            del rule["annotations"]  # promtool would compare them word by word
    (tmp_path / "alerts.json").write_text(json.dumps(content))
    assert set(CASES) == {rule["alert"] for rule in rules(folder)}
    tests = {
        "rule_files": ["alerts.json"],
        "evaluation_interval": f"{SCRAPE_S}s",
        "tests": [_rule_test(alert, case) for alert, case in CASES.items()],
    }
    (tmp_path / "tests.json").write_text(json.dumps(tests))

    assert "SUCCESS" in promtool("test", "rules", tmp_path / "tests.json")


def _rule_test(alert: str, case: Case) -> dict[str, Any]:
    seen = FIRST_BAD * SCRAPE_S
    fires = seen + case.after_s
    labels = {"severity": case.severity, **case.labels}
    own = {
        "series": series(case.metric, {**case.labels, **case.more}),
        "values": f"{case.good} {case.good} {case.bad}x60",
    }
    return {
        "name": alert,
        "interval": f"{SCRAPE_S}s",
        "input_series": [
            own,
            *({"series": name, "values": f"{value}x60"} for name, value in case.beside),
        ],
        "alert_rule_test": [
            {"eval_time": f"{fires - SCRAPE_S}s", "alertname": alert, "exp_alerts": []},
            {"eval_time": f"{fires}s", "alertname": alert, "exp_alerts": [{"exp_labels": labels}]},
        ],
    }


@pytest.mark.parametrize("name", ["keda-scaledobject", "hpa"])
def test_manifests_fit_their_schemas_and_ask_for_exported_metrics(folder: Path, name: str) -> None:
    manifest = load_yaml(folder / "scaling" / f"{name}.yaml")
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)

    jsonschema.validate(manifest, schema)

    asked = NAME.findall(json.dumps(manifest))
    assert asked
    assert all(declared(metric).name == metric for metric in asked)
    manifest["spec"]["maxReplicas" if name == "hpa" else "maxReplicaCount"] = "8"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(manifest, schema)
