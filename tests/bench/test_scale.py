"""A run on models comes to its end and is counted; growth is told from figures."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench_lib.programs.memory_run import measure
from bench_lib.scale import (
    LARGE,
    RunCost,
    SshCost,
    all_met,
    fitted_power,
    growth_of,
    middle_costs,
    middle_runs,
    scale_markdown,
)


def run_cost(nodes: int, ms: float, *, mb: float = 0.1) -> RunCost:
    phases = {"connect to launch": ms * nodes / 2e3, "watch": ms * nodes / 2e3, "outputs": 9.0}
    return RunCost(nodes=nodes, phases=phases, peak_bytes=round(mb * nodes * 1e6))


def ssh_cost(nodes: int, user_s: float) -> SshCost:
    return SshCost(command="exec", nodes=nodes, wall_s=1.0, cpu_s=2 * user_s, user_s=user_s)


def test_a_run_on_models_is_counted_in_each_phase(tmp_path: Path) -> None:
    found = measure(3, 20.0, tmp_path)
    assert found["nodes"] == 3
    assert found["simulated_s"] > 20
    assert list(found["own_s"]) == ["connect to launch", "watch", "outputs and sweep"]
    assert all(seconds > 0 for seconds in found["own_s"].values())
    assert found["models_s"] > 0


def test_growth_is_that_of_further_nodes_whatever_the_start_costs() -> None:
    assert growth_of({8: 1.08, 32: 1.32, 128: 2.28, 256: 3.56}) == pytest.approx(1.0)
    assert growth_of({8: 1.0, 16: 2.0, 32: 6.0}) == pytest.approx(2.0)


def test_medians_judge_and_a_miss_is_said() -> None:
    ssh = [ssh_cost(nodes, nodes / 100) for nodes in (8, 32, 128)]
    ssh += [ssh_cost(8, 9.9), ssh_cost(8, 0.0)]
    runs = [run_cost(50, 5.0), *(run_cost(LARGE, ms) for ms in (9.0, 5.5, 5.0))]
    assert middle_costs(ssh, "exec") == {8: 0.08, 32: 0.32, 128: 1.28}
    assert [run.node_ms for run in middle_runs(runs)] == pytest.approx([5.0, 5.5])
    assert fitted_power(middle_runs(runs)) == pytest.approx(1.03, abs=0.01)
    assert all_met(ssh, runs)
    text = scale_markdown(ssh, runs)
    assert "Growth 1.00 x linear" in text
    assert "MISSED" not in text
    for worse in ([run_cost(LARGE, 6.5)], [run_cost(LARGE, 5.0, mb=0.8)]):
        assert not all_met(ssh, worse)
        assert "MISSED" in scale_markdown([], worse)
    steep = [ssh_cost(8, 0.1), ssh_cost(32, 0.4), ssh_cost(128, 4.0)]
    assert not all_met(steep, [])
    assert "MISSED" in scale_markdown(steep, [])
