"""What ``orchestrate nightly add`` refuses before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.cli.main import main

ADD = ["nightly", "add", "n1", "--cluster", "local", "--workload", "sleep", "--at", "19:00"]


@pytest.mark.parametrize(
    "words,said",
    [
        (["--jitter", "nan"], "not a finite number"),
        (["--limit", "inf"], "Invalid value"),
        (["--catch-up", "nan"], "not a finite number"),
        (["--env", "TOKEN"], "no value in 'TOKEN'"),
        (["--status", "live_status.doc"], "does not say its format"),
        (["--status-every", "0"], "Invalid value"),
    ],
)
def test_bad_values_leave_no_schedule(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path))
    assert main([*ADD, "--tz", "UTC", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "nightly" / "n1").exists()
