"""The textfile for node_exporter: what its collector demands."""

from __future__ import annotations

import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.report.exporters.prometheus_textfile import (
    VARIABLE,
    render_textfile,
    write_textfile,
)
from orchestrator.adapters.report.finished_run import FinishedRun
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.verdict.result import MetricResult
from tests.cli.runs_on_disk import events_of
from tests.core.world import request

LINE = re.compile(r'([a-z_]+)\{((?:[a-z]+="(?:[^"\\\n]|\\.)*",?)+)\} (\S+)')


def finished(home: Path, **metrics: MetricResult) -> FinishedRun:
    layout = Layout(home)
    _, result = events_of()
    result = replace(result, metrics=metrics, cluster='a "b"\\\n', timings={"watch": 2.5})
    asked = request("a", "b")
    return FinishedRun(
        layout=layout, folder=layout.run("r1"), request=asked, result=result, now=1.5e9
    )


def test_every_line_is_a_sample_once_and_the_file_ends(tmp_path: Path) -> None:
    nan = MetricResult(value=float("nan"), unit="s")
    run = finished(tmp_path, speed=MetricResult(value=7.0, unit="tok/s"), nothing=nan)

    text = render_textfile(run)

    samples = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(LINE.fullmatch(line) for line in samples)
    keys = [line.rpartition(" ")[0] for line in samples]
    assert len(keys) == len(set(keys))
    assert text.endswith("\n")
    assert "nan" not in text
    assert 'figure="speed",unit="tok/s"} 7' in text


def test_the_file_is_replaced_and_readable_by_the_exporter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "textfiles"
    folder.mkdir()
    run = finished(tmp_path)
    write_textfile(run)  # without the variable nothing is written
    assert list(folder.iterdir()) == []

    monkeypatch.setenv(VARIABLE, str(folder))
    write_textfile(run)
    write_textfile(run)

    (file,) = folder.iterdir()
    assert file.suffix == ".prom"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert file.read_text() == render_textfile(run)
