"""What LoadGen is set to: the real one takes it, and says the same when it is read back."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.loadgen import installed, program
from orchestrator.adapters.loadgen.load_plan import (
    BENCHMARKS,
    SERVER_SHARE,
    describe_test,
    mismatches,
    plan_test,
    require_samples,
)
from orchestrator.cli.main import main
from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.load import LoadMode, LoadTerms, Scenario
from tests.architecture.source import ROOT
from tests.loadgen.terms import OFFICIAL, SHORT
from tests.time_limits import scaled


def read_back(plan: dict[str, Any], folder: Path) -> dict[str, Any]:
    """LoadGen's settings after ``plan`` was set, in a process of its own."""
    pytest.importorskip("mlperf_loadgen", reason="hardware: LoadGen has no wheel for this machine")
    done = subprocess.run(
        [sys.executable, "-P", program.__file__, str(folder)],
        input=f'{json.dumps(plan)}\n{{"type": "leave"}}\n',
        capture_output=True,
        text=True,
        timeout=scaled(20),
        check=True,
    )
    (line,) = done.stdout.splitlines()
    return dict(json.loads(line)["values"])


@pytest.mark.processes
@pytest.mark.parametrize("scenario", Scenario)
@pytest.mark.parametrize("terms", [OFFICIAL, SHORT], ids=["official", "short"])
def test_loadgen_has_the_rules_that_we_have(
    terms: LoadTerms, scenario: Scenario, tmp_path: Path
) -> None:
    """Limits, seeds, counts and percentiles of v6.1, and the rate that was measured."""
    plan = plan_test(replace(terms, scenario=scenario), 20_000, 8.0)
    read = read_back(plan.command(), tmp_path)

    assert mismatches(plan, read) == []
    assert read["sample_index_rng_seed"] == 2747215439041700203
    if scenario is Scenario.SERVER:
        assert read["server_target_qps"] == SERVER_SHARE * 8.0
        assert (read["ttft_latency"], read["tpot_latency"]) == (2_000_000_000, 100_000_000)


@pytest.mark.processes
@pytest.mark.slow
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_benchmark_has_its_limits_in_loadgen(benchmark: str, tmp_path: Path) -> None:
    """Offline too, where LoadGen's file has no count for some of them."""
    for scenario in (Scenario.SERVER, Scenario.OFFLINE):
        terms = replace(OFFICIAL, benchmark=benchmark, scenario=scenario)
        plan = plan_test(terms, 20_000, 1.0)
        assert mismatches(plan, read_back(plan.command(), tmp_path)) == []


def test_a_setting_that_is_off_by_one_is_told() -> None:
    """Seeds are 64 bits long: a floating-point number would not tell them apart."""
    plan = plan_test(OFFICIAL, 20_000, 1.0)
    right = dict(plan.expected)
    assert mismatches(plan, right) == []
    off = {**right, "schedule_rng_seed": 16159082839903944937}
    assert mismatches(plan, off) == [
        "schedule_rng_seed is 16159082839903944937, not 16159082839903944936"
    ]
    del right["ttft_latency"]
    assert mismatches(plan, right) == ["ttft_latency is None, not 2000000000"]


def test_a_rate_is_as_asked_or_as_measured() -> None:
    """A queue at full load never ends; an Offline test that is too short is invalid."""

    def rate(scenario: Scenario, asked: float, measured: float) -> float:
        terms = replace(SHORT, scenario=scenario, target_qps=asked)
        expected = plan_test(terms, 10, measured).expected
        return expected.get("server_target_qps", expected.get("offline_expected_qps", 0.0))

    assert rate(Scenario.SERVER, 0.0, 10.0) < 10.0 < rate(Scenario.OFFLINE, 0.0, 10.0)
    assert rate(Scenario.SERVER, 3.5, 10.0) == rate(Scenario.OFFLINE, 3.5, 10.0) == 3.5
    assert rate(Scenario.SERVER, 0.0, 0.0) > 0
    assert rate(Scenario.SINGLE_STREAM, 0.0, 10.0) == 0


def test_official_rules_ask_for_their_samples() -> None:
    """LoadGen would ask for samples that are not there."""
    require_samples(OFFICIAL, 13368)
    require_samples(SHORT, 1)
    with pytest.raises(UsageError, match="13368 samples; there are 64") as caught:
        require_samples(OFFICIAL, 64)
    assert "--set samples=13368" in caught.value.remedy
    with pytest.raises(UsageError, match="no limits for the benchmark 'bert'"):
        require_samples(replace(SHORT, benchmark="bert"), 64)


def test_without_loadgen_the_command_that_brings_it_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(installed, "MODULE", "mlperf_loadgen_that_is_not_here")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    said: list[str] = []
    with pytest.raises(UsageError) as caught:
        installed.require_loadgen(said.append)
    assert f"-m pip install {installed.REQUIREMENT}" in caught.value.remedy
    assert "preset=tiny" in caught.value.remedy
    assert said == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["mlperf"] == [installed.REQUIREMENT]


@pytest.mark.parametrize(
    "terms, words",
    [
        (SHORT, ("PerformanceOnly", "short rules", "at least 10 s")),
        (OFFICIAL, ("official rules", "at least 600 s")),
        (replace(SHORT, min_duration_s=2.5), ("at least 2.5 s",)),
        (replace(OFFICIAL, mode=LoadMode.ACCURACY), ("AccuracyOnly", "20000 samples")),
    ],
)
def test_a_plan_tells_how_loadgen_asks_and_how_long(
    terms: LoadTerms, words: tuple[str, ...]
) -> None:
    text = "\n".join(describe_test(terms, 20_000))
    assert all(word in text for word in ("beside the coordinator", *words))


@pytest.mark.processes
@pytest.mark.parametrize(
    "checkout, said", [(True, "the run would install mlcommons-loadgen"), (False, "pip install")]
)
def test_a_plan_installs_nothing_and_says_what_is_missing(
    checkout: bool,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In a checkout the run would install it, elsewhere the user has to."""

    def install(*_: object, **__: object) -> None:
        raise AssertionError("a plan installs nothing")

    monkeypatch.setattr(installed, "MODULE", "mlperf_loadgen_that_is_not_here")
    monkeypatch.setattr(installed, "_install", install)
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    if checkout:
        (tmp_path / "ready").touch()
    answers = str(ROOT / "tests" / "workloads" / "programs" / "answers")

    assert main(["plan", "--offline", "--cluster", "local", "--workload", answers]) == 0
    told = capsys.readouterr().out
    assert "scenario Offline, mode PerformanceOnly, short rules" in told
    assert "not installed" in told
    assert said in told


@pytest.mark.processes
def test_a_checkout_installs_it_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And says so; where that fails, pip's last words are the reason."""
    monkeypatch.setattr(installed, "MODULE", "mlperf_loadgen_that_is_not_here")
    monkeypatch.setattr(installed, "REQUIREMENT", "./no-such-folder")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    (tmp_path / "ready").touch()
    said: list[str] = []
    with pytest.raises(UsageError) as caught:
        installed.require_loadgen(said.append)
    assert "installing LoadGen" in said[0]
    assert caught.value.why.startswith("pip: ")
