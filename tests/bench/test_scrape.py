"""The live run that `scripts/bench scrape` makes is one that a monitor reads."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from bench_lib.scrape import (
    GPUS,
    RUN,
    Scraped,
    advance_run,
    claim_run,
    fill_run,
    measure_scrapes,
    scrape_markdown,
    summarize_scrapes,
)

from orchestrator.adapters.monitoring.monitor import Monitor
from orchestrator.adapters.store.layout import Layout


def test_every_node_and_rank_is_in_an_answer_and_moves_on(tmp_path: Path) -> None:
    fill_run(tmp_path / "home", 3)
    claim_run(tmp_path / "home")
    layout = Layout(tmp_path / "home")
    monitor = Monitor(layout)

    def values(name: str) -> dict[tuple[str, ...], float]:
        found = monitor.collect(3000.0)
        return {s.labels: s.value for s in found if s.metric.name == name}

    assert values("orchestrate_run_ranks")[RUN, "running"] == 3 * GPUS
    assert values("orchestrate_node_up") == {(RUN, f"gpu000{n}"): 1 for n in range(3)}
    assert values("orchestrate_run_tokens_per_second")[RUN,] == 3000
    advance_run(layout, 9)
    assert values("orchestrate_run_progress_ratio")[RUN,] == 0.01
    assert values("orchestrate_run_gpu_energy_joules_total")[RUN,] == 3 * GPUS * 650 * 9


def test_a_missed_target_is_said() -> None:
    met = Scraped(
        nodes=1, series=1, bytes=1, first_s=1, median_s=0.2, worst_s=1, cpu_s=0.2, peak_mb=50
    )

    assert "| met" in scrape_markdown(met)
    assert "MISSED" in scrape_markdown(replace(met, peak_mb=101))
    assert "MISSED" in scrape_markdown(replace(met, cpu_s=0.31))


@pytest.mark.processes
def test_each_scrape_counts_when_it_is_over() -> None:
    """The first one alone is a report, too."""
    taken: list[Mapping[str, float]] = []
    measure_scrapes(sys.executable, nodes=2, scrapes=2, taken=taken)

    assert len(taken) == 3
    whole, cut = summarize_scrapes(2, taken), summarize_scrapes(2, taken[:1])
    assert min(whole.series, cut.series) > 2 * GPUS
    assert cut.median_s == cut.first_s == whole.first_s
    assert scrape_markdown(cut)
