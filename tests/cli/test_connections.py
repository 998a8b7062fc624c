"""``orchestrate connections`` on sockets that an ``ssh`` of this machine's tests holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli.main import main


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def run(*argv: str) -> int:
    return main(["connections", *argv])


def test_nothing_is_held(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list") == 0
    assert "no connection is held" in capsys.readouterr().out
    assert run("list", "--json") == 0
    assert capsys.readouterr().out == ""
    assert run("close", "--json") == 0
    assert json.loads(capsys.readouterr().out)["closed"] == []


def test_a_name_that_nobody_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("close", "0123-0") == 2
    assert "connections list" in capsys.readouterr().err


def test_a_cluster_without_such_nodes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("open", "--cluster", "local") == 2
    assert "transport: openssh" in capsys.readouterr().err
