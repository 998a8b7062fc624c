"""The textfile for node_exporter: what its collector demands."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.adapters.report.exporters.prometheus_textfile import VARIABLE, write_textfile
from orchestrator.adapters.report.finished_run import FinishedRun
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.verdict.result import MetricResult
from tests.cli.runs_on_disk import events_of
from tests.core.world import request


def finished(home: Path, **metrics: MetricResult) -> FinishedRun:
    layout = Layout(home)
    _, result = events_of()
    result = replace(result, metrics=metrics, cluster='a "b"\\\n', timings={"watch": 2.5})
    asked = request("a", "b")
    return FinishedRun(
        layout=layout, folder=layout.run("r1"), request=asked, result=result, now=1.5e9
    )


def test_the_file_has_every_series_once_and_replaces_the_last_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "textfiles"
    folder.mkdir()
    nan = MetricResult(value=float("nan"), unit="s")
    run = finished(tmp_path, speed=MetricResult(value=7.0, unit="tok/s"), nothing=nan)
    write_textfile(run)  # without the variable nothing is written
    assert list(folder.iterdir()) == []

    monkeypatch.setenv(VARIABLE, str(folder))
    write_textfile(run)
    write_textfile(run)

    (file,) = folder.iterdir()
    assert file.suffix == ".prom"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    families = list(text_string_to_metric_families(file.read_text()))
    series = [(s.name, tuple(s.labels.items())) for family in families for s in family.samples]
    assert len(series) == len(set(series))
    (figure,) = next(f for f in families if f.name == "orchestrate_last_run_figure").samples
    assert (figure.value, figure.labels["figure"], figure.labels["unit"]) == (7.0, "speed", "tok/s")
    assert figure.labels["cluster"] == 'a "b"\\?'
