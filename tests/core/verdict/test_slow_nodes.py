"""A slow node is named, with how much slower it is; nodes that differ by noise are not."""

from __future__ import annotations

from statistics import median

from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.core.verdict.slow_nodes import OWN_STEP, SLOW, describe_slow_nodes

SECONDS = st.dictionaries(
    st.sampled_from([f"n{index}" for index in range(9)]), st.floats(0.01, 100), max_size=9
)


def named(seconds: dict[str, float]) -> list[str]:
    figures = {f"{OWN_STEP}.{node}": value for node, value in seconds.items()}
    return [line.partition(" ")[0] for line in describe_slow_nodes(figures)]


@given(SECONDS)
def test_a_node_is_named_if_it_takes_a_tenth_longer_than_the_others(
    seconds: dict[str, float],
) -> None:
    """Than the median of the others; one node alone has none beside it."""
    wanted = set()
    for node, value in seconds.items():
        others = [other for name, other in seconds.items() if name != node]
        if others and value >= SLOW * median(others):
            wanted.add(node)
    assert set(named(seconds)) == wanted


@given(st.floats(0.01, 10), st.integers(2, 50), st.floats(1.2, 20))
def test_of_equal_nodes_only_the_one_that_is_slow_is_named(
    seconds: float, count: int, times: float
) -> None:
    assume(seconds * times > 0)
    equal = {f"n{index}": seconds for index in range(count)}
    assert named(equal) == []
    assert named({**equal, "n1": seconds * times}) == ["n1"]


def test_the_sentence_has_the_figures() -> None:
    figures = {f"{OWN_STEP}.gpu01": 0.6, f"{OWN_STEP}.gpu02": 0.9, "tokens_per_s": 5.0}
    (line,) = describe_slow_nodes({**figures, f"{OWN_STEP}.gpu03": 0.61, f"{OWN_STEP}.x": None})
    assert line == (
        "gpu02 is slow: its own part of a step takes 0.9 s, 1.49 times as long as on the other "
        "nodes (median 0.605 s); a node counts as slow from 1.1 on"
    )
    assert list(describe_slow_nodes({f"{OWN_STEP}.gpu01": 0.6})) == []
