"""drill before it contacts anything: what it says that it would do, and to which nodes."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from orchestrator.core.base.errors import ExitCode
from orchestrator.core.drill_promises import DrillLimits, list_drills

NAMES = [drill.name for drill in list_drills(DrillLimits())]


@pytest.fixture
def inventory(tmp_path: Path) -> str:
    """Nodes that no network has."""
    path = tmp_path / "far.yaml"
    path.write_text("name: far\nnodes: ['n[1-3].invalid']\n")
    return str(path)


def test_a_dry_run_tells_every_drill_and_contacts_nothing(
    inventory: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The fault, the node and the promises of each; nothing is written here either."""
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    assert main(["drill", "-C", inventory, "--dry-run", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["name"] for record in records] == NAMES
    assert all(record["does"] and record["promises"] for record in records)
    assert {record["node"] for record in records} == {
        None,
        "n1.invalid",
        "n2.invalid",
        "n3.invalid",
    }
    assert main(["drill", "-C", inventory, "--dry-run", "--nodes", "n2.invalid"]) == 0
    table = capsys.readouterr().out
    assert all(name in table for name in NAMES)
    assert "n2.invalid" in table
    assert "n3.invalid" not in table
    assert not (tmp_path / "home" / "runs").exists()


def test_help_names_every_drill(capsys: pytest.CaptureFixture[str]) -> None:
    """What will be done to the machines stands there before anybody runs it."""
    assert main(["drill", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in NAMES)


def test_an_unknown_drill_is_refused(inventory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 2 with the nearest name."""
    assert main(["drill", "-C", inventory, "--only", "kill-rnak"]) == ExitCode.USAGE
    assert "kill-rank" in capsys.readouterr().err


@pytest.fixture
def handlers() -> Iterator[None]:
    """What signals do in this process, put back afterwards: the command takes them over."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.processes
@pytest.mark.usefixtures("handlers")
def test_nodes_that_cannot_be_reached_are_told_before_anything_is_begun(
    inventory: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit 4, every drill not-run with the reason, and one result as the last line."""
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    code = main(["drill", "-C", inventory, "--only", "lease", "--json"])
    drill, result = map(json.loads, capsys.readouterr().out.splitlines())
    assert (code, result["exit_code"], result["type"]) == (ExitCode.PREFLIGHT, 4, "result")
    assert (drill["verdict"], result["not_run"]) == ("not-run", 1)
    assert "n1.invalid" in drill["reason"]
    assert list((tmp_path / "home").glob("runs/*")) == []
