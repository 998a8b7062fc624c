"""NVLink payload beside what a ring of GPUs has to send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.captures.nvlink import (
    ONCE,
    Collectives,
    LinkFigures,
    compare_payload,
    link_figures,
    payload_per_gpu,
    unevenness,
)

WHOLE = -1


def ring_all_reduce(ranks: int, chunk: int) -> int:
    """Bytes that one rank sends: counted step by step, as a ring passes chunks on."""
    sent = 0
    for _phase in ("reduce-scatter", "all-gather"):
        for _step in range(ranks - 1):
            sent += chunk
    return sent


@given(ranks=st.integers(1, 64), chunk=st.integers(1, 1 << 30), count=st.integers(1, 100))
def test_the_formula_is_what_a_ring_sends(ranks: int, chunk: int, count: int) -> None:
    done = Collectives(op="all-reduce", bytes=ranks * chunk, ranks=ranks, count=count)
    assert payload_per_gpu(done) == pytest.approx(ring_all_reduce(ranks, chunk) * count)


@given(size=st.integers(0, 1 << 40), ranks=st.integers(1, 64))
def test_an_all_reduce_is_a_reduce_scatter_and_an_all_gather(size: int, ranks: int) -> None:
    whole, first, second = (
        payload_per_gpu(Collectives(op=op, bytes=size, ranks=ranks, count=1))
        for op in ("all-reduce", "reduce-scatter", "all-gather")
    )
    assert first is not None
    assert second is not None
    assert whole == pytest.approx(first + second)


def gpus(count: int, sent: float) -> list[LinkFigures]:
    points = [(0.0, 7.0), (4.0, 7.0 + sent)]
    halves = [(0.0, 0.0), (4.0, sent / 2)]
    counted = {WHOLE: (points, points), 0: (halves, halves), 1: (halves, halves)}
    return [link_figures(gpu, counted, WHOLE) for gpu in range(count)]


@given(op=st.sampled_from(["all-reduce", *sorted(ONCE)]), ranks=st.integers(2, 8))
def test_the_ratio_is_one_where_the_links_carried_just_that(op: str, ranks: int) -> None:
    done = Collectives(op=op, bytes=1 << 30, ranks=ranks, count=3)
    compared = compare_payload(gpus(ranks, payload_per_gpu(done) or 0.0), [done])
    assert compared is not None
    assert compared.ratio == pytest.approx(1)


@pytest.mark.parametrize(
    "done, why",
    [
        (Collectives(op="broadcast", bytes=8, ranks=4, count=1), "no formula for broadcast"),
        (Collectives(op="all-reduce", bytes=8, ranks=8, count=1), "among 8 ranks, and 4 GPUs"),
    ],
)
def test_what_cannot_be_compared_says_why(done: Collectives, why: str) -> None:
    compared = compare_payload(gpus(4, 100.0), [done])
    assert compared is not None
    assert why in compared.why_not
    assert compared.ratio is None


def test_nothing_is_compared_where_nothing_was_reported() -> None:
    assert compare_payload(gpus(4, 100.0), []) is None


@given(amounts=st.lists(st.floats(1, 1e12), min_size=2, max_size=18))
def test_even_amounts_are_one_and_nothing_is_below(amounts: list[float]) -> None:
    uneven = unevenness(amounts)
    assert uneven is not None
    assert 1 - 1e-9 <= uneven <= len(amounts) + 1e-9
    assert unevenness([amounts[0]] * len(amounts)) == pytest.approx(1)


def test_the_busiest_link_shows() -> None:
    def counted(amount: float) -> tuple[list[tuple[float, float]], list[tuple[float, float]]]:
        return [(0.0, 0.0), (1.0, amount)], [(0.0, 0.0), (1.0, amount)]

    links = {WHOLE: counted(400.0), 0: counted(300.0), 1: counted(100.0)}
    found = link_figures(0, links, WHOLE)
    assert found.imbalance == pytest.approx(1.5)
    assert (found.sent.bytes, found.sent.peak) == (400.0, 400.0)
