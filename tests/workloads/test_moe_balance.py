"""Balance of experts: equal to a plain reference on crafted routing, and never over layers."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moe.balance import balance
from moe.report import (
    added_ranks,
    balance_figures,
    summed_layers,
    telemetry_document,
    wrong_counts,
)

COUNTS = st.lists(st.integers(0, 10**9), min_size=1, max_size=40).filter(any)


def reference(counts: list[int]) -> dict[str, float]:
    """Each figure by its definition, in the slow way."""
    size, total = len(counts), sum(counts)
    mean = total / size
    differences = sum(abs(a - b) for a, b in itertools.product(counts, counts))
    shares = [count / total for count in counts if count]
    return {
        "utilisation": sum(count > 0 for count in counts) / size,
        "max_over_mean": max(counts) / mean,
        "gini": differences / (2 * size * size * mean),
        "cv": statistics.pstdev(counts) / mean,
        "dead": counts.count(0),
        "effective_experts": math.exp(-sum(share * math.log(share) for share in shares)),
    }


@given(COUNTS)
def test_every_figure_is_that_of_its_definition(counts: list[int]) -> None:
    found = balance(counts)
    for name, value in reference(counts).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9, abs=1e-9), name


@given(COUNTS, st.randoms(use_true_random=False))
def test_the_order_of_experts_does_not_matter(counts: list[int], random: object) -> None:
    shuffled = counts[:]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert balance(shuffled).gini == balance(counts).gini


@pytest.mark.parametrize(
    "counts, expected",
    [
        ([5] * 8, (1.0, 1.0, 0.0, 0.0, 0, 8.0)),
        ([0] * 7 + [40], (1 / 8, 8.0, 7 / 8, math.sqrt(7), 7, 1.0)),
        ([0, 0, 10, 10], (0.5, 2.0, 0.5, 1.0, 2, 2.0)),
    ],
)
def test_crafted_routing(counts: list[int], expected: tuple[float, ...]) -> None:
    """Even, one expert alone, half of them dead."""
    assert astuple(balance(counts)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("counts", [[], [0, 0], [3, -1]])
def test_nothing_is_said_of_no_tokens(counts: list[int]) -> None:
    with pytest.raises(ValueError, match="a count for each expert"):
        balance(counts)


def test_the_skew_of_one_layer_is_not_averaged_away() -> None:
    """Two layers, skewed in opposite ways: together every expert has the same."""
    layers = [[8, 0], [0, 8]]
    figures = balance_figures(layers)
    assert balance([sum(expert) for expert in zip(*layers, strict=True)]).gini == 0
    assert figures["gini"] == (0.5, "")
    assert figures["dead_experts"] == (2, "experts")

    among_many = [[4, 4]] * 31 + [[8, 0]]
    assert balance_figures(among_many)["gini"][0] == 0.5
    assert balance_figures(among_many)["utilisation"][0] == 0.5


def test_the_document_holds_every_layer_and_window() -> None:
    windows = [(0.5, [[3, 1], [2, 2]]), (1.0, [[4, 0], [0, 4]])]
    document = telemetry_document(["a", "b"], windows, top_k=2, tokens=2, cost={"mean": 0.0})
    assert (document["tokens"], document["experts"], document["top_k"]) == (4, 2, 2)
    assert [layer["counts"] for layer in document["layers"]] == [[7, 1], [2, 6]]
    assert [layer["name"] for layer in document["layers"]] == ["a", "b"]
    assert [w["layers"][1]["gini"] for w in document["windows"]] == [0.0, 0.5]
    assert wrong_counts(summed_layers(windows), document["tokens"], 2) == 0


def test_a_token_that_was_not_counted_is_noticed() -> None:
    """Also where one layer has too few and another too many."""
    assert wrong_counts([[3, 1], [2, 1]], 2, 2) == 1
    assert wrong_counts([[3, 2], [2, 1]], 2, 2) == 2


def test_ranks_with_their_own_batches_are_added_up() -> None:
    one, other = [(0.5, [[3, 1]])], [(0.7, [[0, 4]])]
    assert added_ranks([one, other]) == [(0.7, [[3, 5]])]
