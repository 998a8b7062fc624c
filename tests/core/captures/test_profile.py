"""Shares of a profile add up, whatever overlaps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.captures.profile import (
    COMMUNICATION,
    COMPUTE,
    COPIES,
    GAPS,
    Event,
    RankProfile,
    category_of,
    profile_figures,
)

NAMES = ("gemm", "ncclDevKernel_AllReduce", "Memcpy DtoD")
KINDS = ("kernel", "kernel", "copy")
EVENTS = st.lists(
    st.tuples(st.floats(0, 1e6), st.floats(0, 1e4), st.integers(0, 3), st.integers(0, 2)),
    min_size=1,
    max_size=80,
)


def profile_of(events: list[Event]) -> RankProfile:
    return RankProfile(rank=0, names=NAMES, kinds=KINDS, events=events)


@given(events=EVENTS)
def test_kernels_and_gaps_are_the_whole_time(events: list[Event]) -> None:
    found = profile_figures(profile_of(events))
    assert found is not None
    whole = max(s + d for s, d, *_ in events) - min(s for s, *_ in events)
    assert sum(k.seconds for k in found.kernels) + found.categories[GAPS] == pytest.approx(
        whole / 1e6, abs=1e-9
    )
    assert found.seconds == pytest.approx(whole / 1e6, abs=1e-9)
    assert sum(kernel.count for kernel in found.kernels) == len(events)


@given(events=EVENTS)
def test_no_name_gets_more_time_than_it_ran(events: list[Event]) -> None:
    found = profile_figures(profile_of(events))
    assert found is not None
    for kernel in found.kernels:
        assert kernel.seconds <= kernel.alone_s + 1e-9
    assert 0 <= found.longest_gap_s <= found.categories[GAPS] + 1e-9


@given(lengths=st.lists(st.floats(1, 1e4), min_size=1, max_size=40), gap=st.floats(1, 100))
def test_what_follows_each_other_keeps_its_durations(lengths: list[float], gap: float) -> None:
    t, events = 0.0, []
    for place, length in enumerate(lengths):
        events.append((t, length, 0, place % 3))
        t += length + gap
    found = profile_figures(profile_of(events))
    assert found is not None
    for kernel in found.kernels:
        assert kernel.seconds == pytest.approx(kernel.alone_s)
    assert found.categories[GAPS] == pytest.approx(gap * (len(lengths) - 1) / 1e6)


def test_of_nested_operators_the_innermost_runs_and_lanes_share() -> None:
    """On lane 0 a call of 10 with one of 4 inside; beside its last 2, lane 1 communicates for 4."""
    events = [(0.0, 10.0, 0, 0), (3.0, 4.0, 0, 2), (8.0, 4.0, 1, 1)]
    found = profile_figures(profile_of(events))
    assert found is not None
    by_name = {kernel.name: kernel.seconds * 1e6 for kernel in found.kernels}
    assert by_name == pytest.approx({"gemm": 5.0, "Memcpy DtoD": 4.0, NAMES[1]: 3.0})
    assert found.categories[COMPUTE] * 1e6 == pytest.approx(5.0)
    assert found.categories[COPIES] * 1e6 == pytest.approx(4.0)
    assert found.categories[COMMUNICATION] * 1e6 == pytest.approx(3.0)
    assert found.hidden_s * 1e6 == pytest.approx(2.0)


@pytest.mark.parametrize(
    "name, kind, category",
    [
        ("ncclDevKernel_AllGather_RING_LL(ncclDevKernelArgsStorage<4096ul>)", "kernel", "comm"),
        ("c10d::allreduce_", "operator", "comm"),
        ("Memcpy HtoD (Pageable -> Device)", "copy", "copies"),
        ("nvjet_tst_128x256", "kernel", "compute"),
    ],
)
def test_names_are_put_into_categories(name: str, kind: str, category: str) -> None:
    assert category_of(name, kind).startswith(category)


def test_nothing_comes_of_nothing() -> None:
    assert profile_figures(RankProfile(rank=0, reason="no GPU")) is None
