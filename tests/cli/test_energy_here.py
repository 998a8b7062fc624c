"""Energy and cost of a whole run on this machine, with a driver's library that was made for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli.main import main
from tests.fixtures.nvml import build_driver

pytestmark = pytest.mark.processes

SCRIPT = """
import sys, time
import orchestrate_kit as kit

with kit.measured_window() as window:
    time.sleep(float(sys.argv[1]))
    window.count(requests=1, input_tokens=100, output_tokens=50)
"""
PRICES = """
electricity: [{name: hall, currency: EUR, per_kwh: 0.3, pue: 1.2, date: 2026-01-01, source: bill}]
apis: [{name: theirs, currency: EUR, per_million_input: 1, per_million_output: 3, date: 2026-01-01,
        source: page}]
"""


class Machines:
    """Two nodes with two GPUs each that cost 36 EUR an hour; n2's driver may be told otherwise."""

    def __init__(self, root: Path, **of_second: str) -> None:
        self.cluster = root / "pair.yaml"
        self.prices = root / "ours.yaml"
        self.prices.write_text(PRICES)
        (root / "job.py").write_text(SCRIPT)
        driver = {"LD_LIBRARY_PATH": str(build_driver(root)), "FAKE_GPUS": "2"}
        document = {
            "name": "pair",
            "currency": "EUR",
            "defaults": {
                "transport": "local",
                "python": sys.executable,
                "workdir": str(root / "node"),
                "price_per_hour": 36,
                "env": driver,
            },
            "nodes": [{"name": "n1"}, {"name": "n2", "env": of_second}],
        }
        self.cluster.write_text(json.dumps(document))

    def run(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
        """The result object."""
        options = ["--cluster", str(self.cluster), "--launcher", "manual", "--json"]
        main(["run", *options, "--prices", str(self.prices), "--", "job.py", *arguments])
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert isinstance(result, dict)
        return result


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))


def test_all_gpus_of_all_nodes_count_and_prices_follow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = Machines(tmp_path).run(capsys, "2.2")
    energy, cost = result["energy"], result["cost"]
    assert energy["reasons"] == []
    assert energy["energy_valid"]
    assert energy["gpus"] == 4
    # Each node draws 250 W and 300 W; at both ends the counter may be one of its updates behind.
    assert energy["joules"] == pytest.approx(1100 * energy["seconds"], abs=1100 * 0.21)
    assert energy["watts_peak"] == 1100
    assert energy["joules_per"]["output_token"] == pytest.approx(energy["joules"] / 100)
    assert energy["tokens_per_joule"] == pytest.approx(300 / energy["joules"])
    assert cost["currency"] == "EUR"
    assert cost["run"] == pytest.approx(72 / 3600 * sum(result["timings"].values()), rel=1e-3)
    window = 72 / 3600 * energy["seconds"]
    assert cost["per_million"]["output_tokens"] == pytest.approx(window / 100 * 1e6)
    assert cost["electricity"][0]["run"] == pytest.approx(energy["joules"] * 1.2 * 0.3 / 3.6e6)
    assert cost["break_even"][0]["ratio"] == pytest.approx(window / (500 / 1e6))
    main(["show", result["run_id"]])
    told = capsys.readouterr().out
    assert "GPU board power (NVML), not wall power" in told
    assert "cost per 1M output tokens" in told
    report = Path(result["report"]).with_suffix(".md").read_text()
    assert "Energy and cost" in report
    assert "electricity, hall" in report


def test_a_node_whose_counter_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = Machines(tmp_path, FAKE_COUNTER="none").run(capsys, "0.1")
    energy = result["energy"]
    assert (energy["energy_valid"], energy["joules"]) == (False, None)
    assert energy["nodes"]["n1"]["joules"] > 0
    assert any(
        reason.startswith("n2: GPU-") and "Not Supported" in reason for reason in energy["reasons"]
    )
    assert result["cost"]["electricity"] == []
    assert result["status"] == "succeeded"


def test_a_price_list_that_makes_no_sense_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machines = Machines(tmp_path)
    machines.prices.write_text(PRICES.replace("per_kwh", "per_kw"))
    options = ["--cluster", str(machines.cluster), "--prices", str(machines.prices)]
    assert main(["run", *options, "--", "job.py"]) == 2
    assert "ours.yaml:2" in capsys.readouterr().err
