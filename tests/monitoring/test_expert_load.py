"""Figures of experts' load: equal to their definitions, and of one layer each."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.monitoring.expert_load import (
    ExpertTable,
    LayerLatency,
    busiest_and_idlest,
    expert_samples,
    layer_latency,
    layer_load,
    table_loads,
)
from orchestrator.view.tables.expert_table import expert_headings, expert_rows

COUNTS = st.lists(st.integers(0, 10**9), min_size=1, max_size=64).filter(any)


def reference(counts: list[int]) -> dict[str, float]:
    """The definitions, word by word: all pairs, the variance, the entropy."""
    x = np.array(counts, dtype=np.longdouble)
    share = x[x > 0] / x.sum()
    return {
        "gini": float(np.abs(x[:, None] - x[None, :]).mean() / (2 * x.mean())),
        "max_to_mean": float(x.max() / x.mean()),
        "variation": float(x.std() / x.mean()),
        "dead": float((x == 0).mean()),
        "effective": float(np.exp(-(share * np.log(share)).sum()) / len(x)),
    }


@given(COUNTS)
def test_figures_equal_their_definitions(counts: list[int]) -> None:
    load = layer_load("0", counts)
    assert load is not None

    for name, value in reference(counts).items():
        assert getattr(load, name) == pytest.approx(value, abs=1e-9), name


@given(COUNTS)
def test_the_workload_and_the_coordinator_say_the_same(counts: list[int]) -> None:
    """Workloads import nothing of the package: both have the formulas, and they agree."""
    workload = pytest.importorskip("workloads.moe.balance")
    here, there = layer_load("0", counts), workload.balance(counts)
    assert here is not None

    assert here.gini == pytest.approx(there.gini, abs=1e-9)
    assert here.max_to_mean == pytest.approx(there.max_over_mean, rel=1e-12)
    assert here.variation == pytest.approx(there.cv, abs=1e-9)
    assert here.dead * here.experts == pytest.approx(there.dead, abs=1e-9)
    assert here.effective * here.experts == pytest.approx(there.effective_experts, rel=1e-9)


@given(COUNTS, st.randoms(use_true_random=False))
def test_the_order_of_experts_does_not_matter(counts: list[int], random: object) -> None:
    shuffled = sorted(counts, key=lambda _: random.random())  # type: ignore[attr-defined]
    one, other = layer_load("0", counts), layer_load("0", shuffled)
    assert one is not None
    assert other is not None
    assert one.gini == pytest.approx(other.gini, abs=1e-12)


def test_the_ends_of_the_scale() -> None:
    even, one = layer_load("a", [5] * 8), layer_load("b", [0] * 7 + [40])
    assert even is not None
    assert one is not None

    assert (even.gini, even.max_to_mean, even.variation, even.dead) == (0, 1, 0, 0)
    assert even.effective == pytest.approx(1)
    assert (one.gini, one.max_to_mean, one.dead) == (7 / 8, 8, 7 / 8)
    assert one.effective == pytest.approx(1 / 8)
    assert layer_load("c", [0, 0]) is None


@pytest.mark.parametrize("counts", [[], [-1, 2], [math.inf], [math.nan, 1]])
def test_counts_that_are_none_are_refused(counts: list[float]) -> None:
    with pytest.raises(ValueError, match="layer x"):
        layer_load("x", counts)


def test_one_layers_skew_is_not_averaged_away() -> None:
    """Layers that are skewed in opposite ways look even when they are added up."""
    table = ExpertTable(source="s", layers=("0", "1"), counts=((90.0, 10.0), (10.0, 90.0)))

    assert [load.gini for load in table_loads(table)] == pytest.approx([0.4, 0.4])
    added = layer_load("sum", [100.0, 100.0])
    assert added is not None
    assert added.gini == 0


def test_five_series_a_layer_whatever_the_number_of_experts() -> None:
    table = ExpertTable(source="s", layers=("0", "1"), counts=((1.0,) * 512, (2.0,) * 512))

    samples = list(expert_samples("r1", table))
    assert len(samples) == 10
    assert {sample.labels for sample in samples} == {("r1", "0"), ("r1", "1")}


def test_the_busiest_and_the_idlest_are_named() -> None:
    assert busiest_and_idlest([5, 0, 9, 1, 0], shown=2) == ([2, 0], [4, 1])


def test_the_latency_of_experts_is_of_those_that_were_measured() -> None:
    counts = ((1.0, 2.0, 0.0, 4.0), (1.0, 1.0, 1.0, 1.0))
    latencies = ((1e-5, 3e-5, None, 2e-5), (None,) * 4)
    table = ExpertTable(source="moe", layers=("a", "b"), counts=counts, latencies=latencies)

    assert layer_latency(table, "a") == LayerLatency(p50=2e-5, max=3e-5, slowest=(1, 3, 0))
    assert layer_latency(table, "b") is None
    assert expert_headings(table)[-1] == "latency p50, max"
    assert [row[-1] for row in expert_rows(table)] == ["20 µs, 30 µs", ""]
