"""Captures of whole runs on this machine, with a driver's library that was made for it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.store.latest_progress import read_live_state
from orchestrator.cli.main import main
from tests.fixtures.nvml import build_driver, build_smi

pytestmark = pytest.mark.processes

WAIT = "import sys, time; time.sleep(float(sys.argv[1]))"
STEPS = """
import torch, orchestrate_kit as kit
for step in range(4):
    kit.progress(step, 4)
    torch.mm(torch.ones(64, 64), torch.ones(64, 64))
kit.mark_step()
"""
COLLECTIVES = """
import sys, time, orchestrate_kit as kit
kit.collective("all-reduce", 1 << 29, count=3, ranks=2)
time.sleep(float(sys.argv[1]))
"""
SHARES = ({"indices": [0, 1]}, {"indices": [2, 3]})
SHARED = ("compute", "communication", "copies", "gaps")
SAMPLED = "power,clocks,memory,nvlink"


class Machine:
    """Two nodes that are this machine, with two of its GPUs each."""

    def __init__(
        self, root: Path, script: str = WAIT, gpus: Sequence[object] = SHARES, **of_second: str
    ) -> None:
        self.root = root
        self.cluster = root / "pair.yaml"
        (root / "job.py").write_text(script)
        driver = {"LD_LIBRARY_PATH": str(root), "FAKE_GPUS": "4"}
        document = {
            "name": "pair",
            "defaults": {
                "transport": "local",
                "python": sys.executable,
                "workdir": str(root / "node"),
                "env": driver,
            },
            "nodes": [
                {"name": "n1", "gpus": gpus[0]},
                {"name": "n2", "gpus": gpus[1], "env": of_second},
            ],
        }
        self.cluster.write_text(json.dumps(document))

    def run(
        self, capsys: pytest.CaptureFixture[str], captures: str, *arguments: str
    ) -> dict[str, Any]:
        """The result object."""
        options = ["--cluster", str(self.cluster), "--launcher", "manual", "--json"]
        main(["run", *options, "--capture", captures, "--", "job.py", *arguments])
        result = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert isinstance(result, dict)
        return result


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the probe, which is a child of this process."""
    build_driver(tmp_path)
    build_smi(tmp_path)
    monkeypatch.setenv("LD_LIBRARY_PATH", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_GPUS", "4")


@pytest.mark.usefixtures("driver")
def test_every_gpu_of_the_run_is_sampled_and_summarised(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = Machine(tmp_path, FAKE_CAPPED="1", FAKE_LINKS="4").run(capsys, SAMPLED, "2.5")
    captures = {capture["kind"]: capture for capture in result["captures"]}
    power, clocks = captures["power"], captures["clocks"]
    assert (power["state"], power["reasons"]) == ("captured", [])
    assert power["figures"]["mean_w"] == pytest.approx(250 + 300 + 350 + 400)
    # Over 2 s and more the counter, which moves every 0.1 s, is at most 5 % behind.
    assert power["figures"]["disagreement_max_fraction"] <= 0.05
    assert clocks["figures"]["held_max_fraction"] == 1
    assert captures["memory"]["figures"]["peak_bytes"] == 11 << 30
    # n1 has no links, and says so; n2 sends over four.
    assert captures["nvlink"]["state"] == "partial"
    assert captures["nvlink"]["reasons"] == ["n1: the driver gives none of these values"]
    assert captures["nvlink"]["figures"]["link_imbalance"] == pytest.approx(1, abs=0.01)

    run = home / "runs" / result["run_id"]
    assert "| n2 GPU 3 | 400 W | 400 W | 700 W |" in (run / power["summary"]).read_text()
    assert "power cap 100%" in (run / clocks["summary"]).read_text()
    header = (run / "artifacts/n1/captures/power.csv").read_text().splitlines()[0]
    assert header == "t,gpu,instant_mw,average_mw,energy_mj"
    report = (run / "report.html").read_text()
    assert "SM clock: n2" in report
    live = {each.node: each for each in read_live_state(run / "progress.json").telemetry}
    assert {name: each.watts for name, each in live.items()} == pytest.approx(
        {"n1": 250 + 300, "n2": 350 + 400}
    )
    assert live["n2"].throttled == {"thermal": 0, "power": 0}  # a software cap is ordinary work
    assert live["n1"].nvlink_sent_bytes is None
    assert (live["n2"].nvlink_sent_bytes or 0) > 0
    main(["show", result["run_id"]])
    assert "Capture power: 4 GPUs, 1,300 W on average" in capsys.readouterr().out


def test_without_gpus_the_run_says_what_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = Machine(tmp_path, gpus=(0, 0)).run(capsys, "power", "0")
    (power,) = result["captures"]
    why = "the job has no GPU on this node"
    assert (power["state"], power["reasons"]) == ("missing", [f"n1: {why}", f"n2: {why}"])
    assert f"capture power: n1: {why}" in result["warnings"]
    assert result["status"] == "succeeded"


def test_a_profile_shows_where_the_time_of_steps_went(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = Machine(tmp_path, STEPS, gpus=(0, 0)).run(capsys, "profile=0.000001@0")
    (profile,) = result["captures"]
    assert (profile["state"], profile["reasons"]) == ("captured", [])
    figures = profile["figures"]
    shares = [figures[f"{name}_fraction"] for name in SHARED]
    assert sum(shares) == pytest.approx(1)
    run = home / "runs" / result["run_id"]
    summary = (run / profile["summary"]).read_text()
    assert "aten::mm | compute | 1 |" in summary
    assert "figures that the script times by itself contain it" in summary
    assert (run / "artifacts/n2/captures/profile/rank-1.trace.json.gz").is_file()


def test_without_marks_of_steps_a_profile_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = Machine(tmp_path, gpus=(0, 0)).run(capsys, "profile", "0")
    (profile,) = result["captures"]
    assert profile["state"] == "missing"
    assert "n1: the script marks no steps" in profile["reasons"][0]


@pytest.mark.usefixtures("driver")
def test_payload_is_compared_with_the_collectives_that_were_reported(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three all-reduces of 0.5 GiB between two GPUs: each sends 1.5 GiB, if nothing else goes."""
    result = Machine(tmp_path, COLLECTIVES, FAKE_LINKS="18").run(capsys, "nvlink", "1")
    (nvlink,) = result["captures"]
    figures = nvlink["figures"]
    ratio = figures["sent_bytes"] / 2 / (1.5 * 2**30)
    assert figures["formula_ratio_max"] == pytest.approx(ratio)
    summary = (home / "runs" / result["run_id"] / nvlink["summary"]).read_text()
    assert f"| n2 | 1.5 GiB | {figures['sent_bytes'] / 2**31:.4g} GiB | {ratio:.4f} |" in summary


def test_an_unknown_capture_is_refused_before_any_contact(
    tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = Machine(tmp_path)
    code = main(["run", "--cluster", str(machine.cluster), "--capture", "powr", "--", "job.py"])
    assert code == 2
    assert "did you mean 'power'?" in capsys.readouterr().err
    assert not (home / "runs").exists()
