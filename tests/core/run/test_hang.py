"""Hangs: who is suspected when, what the nodes must confirm, and who is to blame."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.run.evidence import Collective, Inspection, RankEvidence
from orchestrator.core.run.hang import (
    Activity,
    HangConfidence,
    Suspicion,
    blame_rank,
    is_confirmed,
    suspect_hang,
)

# Stacks as py-spy prints them, innermost first.
ALL_REDUCE = (
    "all_reduce (torch/distributed/distributed_c10d.py:2806)",
    "wrapper (torch/distributed/c10d_logger.py:81)",
    "train (train.py:40)",
    "<module> (train.py:61)",
)
BARRIER = (
    "barrier (torch/distributed/distributed_c10d.py:4628)",
    "wrapper (torch/distributed/c10d_logger.py:81)",
    "save (train.py:52)",
)
LOADING = ("load_batch (data.py:17)", "train (train.py:33)", "<module> (train.py:61)")
BACKWARD = (
    "_engine_run_backward (torch/autograd/graph.py:829)",
    "backward (torch/_tensor.py:648)",
    "train (train.py:41)",
)


def seen(rank: int, **fields: Any) -> RankEvidence:
    known: dict[str, Any] = {"state": "S", "waits_in": "futex", "quiet_s": 100.0, **fields}
    return RankEvidence(rank=rank, pid=1000 + rank, **known)


def at(entered: int, completed: int, **fields: Any) -> tuple[Collective, ...]:
    given: dict[str, Any] = {"group": "default_pg", "operation": "all_reduce", **fields}
    return (Collective(entered=entered, completed=completed, **given),)


def on_nodes(*ranks: RankEvidence) -> dict[str, Inspection]:
    """One rank per node: rank 0 on vh1, rank 1 on vh2, ..."""
    return {f"vh{found.rank + 1}": Inspection(ranks=(found,)) for found in ranks}


def sentence(*ranks: RankEvidence) -> str:
    found = blame_rank(on_nodes(*ranks))
    assert found is not None
    return found.sentence


def confidence(*ranks: RankEvidence) -> HangConfidence:
    found = blame_rank(on_nodes(*ranks))
    assert found is not None
    return found.confidence


# ---- suspicion ---------------------------------------------------------------------------------


def rank(number: int, last: float, *, steady: bool = False) -> Activity:
    return Activity(node="n", rank=number, last=last, steady=steady)


def test_silence_of_all_ranks_is_suspicious() -> None:
    table = [rank(0, 10.0), rank(1, 12.0)]
    assert suspect_hang(table, 71.9, 60.0) is None
    assert suspect_hang(table, 72.0, 60.0) == Suspicion(silent_s=60.0)


def test_one_silent_rank_is_suspicious_only_if_it_used_to_report_progress() -> None:
    """Most programs let rank 0 alone write and report: the others' silence says nothing."""
    assert suspect_hang([rank(0, 99.0, steady=True), rank(1, 0.0)], 100.0, 60.0) is None
    found = suspect_hang([rank(0, 99.0), rank(1, 0.0, steady=True)], 100.0, 60.0)
    assert found == Suspicion(silent_s=100.0, ranks=(1,))


def test_ranks_that_fall_silent_one_after_the_other_are_suspected_together() -> None:
    """Rank 1 is frozen: rank 0, which wrote a moment earlier, must not be looked at alone."""
    table = [rank(n, 10.0 + n / 10, steady=True) for n in range(3)]
    assert suspect_hang(table, 70.0, 60.0) is None
    assert suspect_hang(table, 70.1, 60.0) is None
    assert suspect_hang(table, 70.25, 60.0) == Suspicion(silent_s=70.25 - 10.2)


def test_without_ranks_there_is_nothing_to_suspect() -> None:
    """All have ended, or none has begun."""
    assert suspect_hang([], 1000.0, 1.0) is None


@given(
    st.lists(st.tuples(st.floats(0, 1000), st.booleans()), min_size=1, max_size=8),
    st.floats(1, 500),
)
def test_whoever_was_heard_of_within_the_limit_is_never_suspected(
    table: list[tuple[float, bool]], limit_s: float
) -> None:
    ranks = [rank(number, *entry[:1], steady=entry[1]) for number, entry in enumerate(table)]
    found = suspect_hang(ranks, 1000.0, limit_s)
    if found is not None:
        named = [r for r in ranks if not found.ranks or r.rank in found.ranks]
        assert named
        assert all(1000.0 - r.last >= limit_s for r in named)
        assert found.silent_s >= limit_s


# ---- confirmation ------------------------------------------------------------------------------


def test_a_rank_that_wrote_meanwhile_is_not_hung() -> None:
    """The coordinator slept, or the link lagged: the node's own clock says when it wrote last."""
    quiet = on_nodes(seen(0, quiet_s=61.0), seen(1, quiet_s=64.0))
    lively = on_nodes(seen(0, quiet_s=61.0), seen(1, quiet_s=3.0))
    assert is_confirmed((), 60.0, quiet)
    assert not is_confirmed((), 60.0, lively)
    assert is_confirmed((0,), 60.0, lively)
    assert not is_confirmed((1,), 60.0, lively)


def test_a_node_out_of_reach_confirms_nothing() -> None:
    silent = on_nodes(seen(0, quiet_s=100.0))
    assert not is_confirmed((), 60.0, {**silent, "vh2": Inspection(reachable=False)})
    assert is_confirmed((), 60.0, {**silent, "vh2": Inspection(problem="no answer")})


def test_ranks_that_never_wrote_are_silent_and_ended_ones_say_nothing() -> None:
    assert is_confirmed((), 60.0, on_nodes(seen(0, quiet_s=None)))
    assert not is_confirmed((), 60.0, {"vh1": Inspection()})


# ---- blame: the rules in order -----------------------------------------------------------------


def test_a_stopped_rank_beats_everything() -> None:
    """Also when others seem odder: somebody stopped it, and nothing else needs explaining."""
    frozen = seen(1, state="T", waits_in="do_signal_stop", collectives=at(9, 9))
    others = [seen(n, stack=ALL_REDUCE, collectives=at(7, 6)) for n in (0, 2)]
    found = blame_rank(on_nodes(others[0], frozen, others[1]))
    assert found is not None
    assert (found.node, found.rank, found.confidence) == ("vh2", 1, HangConfidence.CERTAIN)
    assert found.sentence == "rank 1 on vh2 is stopped (SIGSTOP); 2 ranks wait for it in all_reduce"


def test_several_stopped_ranks_are_counted() -> None:
    assert sentence(seen(0), seen(1, state="T"), seen(2, state="T")) == (
        "rank 1 on vh2 is stopped (SIGSTOP) (so is 1 more rank)"
    )


def test_a_rank_in_a_debugger_is_told_as_such() -> None:
    assert sentence(seen(0), seen(1, state="t")) == "rank 1 on vh2 is held by a debugger"


def test_an_uninterruptible_rank_is_named_with_what_it_waits_for() -> None:
    """A file server that does not answer, for instance."""
    stuck = seen(2, state="D", waits_in="rpc_wait_bit_killable", stack=LOADING)
    assert sentence(seen(0, stack=ALL_REDUCE), seen(1), stuck) == (
        "rank 2 on vh3 is stuck in the kernel (uninterruptible sleep in rpc_wait_bit_killable); "
        "1 rank waits for it in all_reduce"
    )


@pytest.mark.parametrize("state", ["", "Z"])
def test_a_rank_without_a_process_is_named(state: str) -> None:
    assert "rank 1 on vh2 has no process any more" in sentence(seen(0), seen(1, state=state))


def test_a_node_that_does_not_tell_is_named_as_a_whole() -> None:
    silent = {**on_nodes(seen(0)), "vh2": Inspection(problem="no answer within 20 s")}
    found = blame_rank(silent)
    assert found is not None
    assert (found.node, found.rank) == ("vh2", None)
    assert "no answer within 20 s" in found.sentence


def test_flight_records_name_who_did_not_enter_the_collective() -> None:
    """Sequence numbers of two H200s: rank 0 entered number 6, rank 1 slept after number 5."""
    waiting = seen(0, collectives=at(6, 5, members=(0, 1)), gpu_busy=100)
    missing = seen(1, collectives=at(5, 5, members=(0, 1)), gpu_busy=0)
    assert sentence(waiting, missing) == (
        "rank 1 on vh2 has not entered all_reduce number 6 of group default_pg; "
        "1 rank waits for it in all_reduce"
    )
    assert confidence(waiting, missing) is HangConfidence.CERTAIN


def test_who_waits_in_another_group_is_not_the_cause() -> None:
    """Rank 1 is late in the data group because it waits for rank 2 in the tensor group."""
    data = {"group": "data", "members": (0, 1)}
    tensor = {"group": "tensor", "members": (1, 2)}
    ranks = [
        seen(0, collectives=at(8, 7, **data)),
        seen(1, collectives=at(7, 7, **data) + at(4, 3, **tensor)),
        seen(2, collectives=at(3, 3, **tensor)),
    ]
    assert sentence(*ranks).startswith("rank 2 on vh3 has not entered all_reduce number 4")


def test_different_operations_under_one_number_are_a_mismatch() -> None:
    ranks = [seen(n, collectives=at(4, 3, operation="all_reduce")) for n in (0, 1)]
    odd = seen(2, collectives=at(4, 3, operation="broadcast"))
    assert sentence(*ranks, odd).startswith(
        "rank 2 on vh3 called broadcast as number 4 of group default_pg, others all_reduce"
    )


def test_groups_of_one_name_and_different_members_are_not_compared() -> None:
    """Pipeline stages have groups of their own that progress apart."""
    ranks = [
        seen(n, collectives=at(9 if n < 2 else 3, 9 if n < 2 else 3, group="tp", members=m))
        for n, m in ((0, (0, 1)), (1, (0, 1)), (2, (2, 3)), (3, (2, 3)))
    ]
    assert "entered" not in sentence(*ranks)


def test_the_stack_that_is_not_in_the_collective_is_named() -> None:
    late = seen(1, stack=LOADING)
    others = [seen(n, stack=ALL_REDUCE) for n in (0, 2, 3)]
    assert sentence(*others, late) == (
        "rank 1 on vh2 is in load_batch (data.py:17), not in all_reduce; "
        "3 ranks wait for it in all_reduce"
    )
    assert confidence(*others, late) is HangConfidence.LIKELY


def test_two_ranks_suffice_to_tell_who_is_not_in_the_collective() -> None:
    assert sentence(seen(0, stack=ALL_REDUCE), seen(1, stack=LOADING)).startswith("rank 1 on vh2")


def test_the_rank_in_another_collective_is_named() -> None:
    others = [seen(n, stack=ALL_REDUCE) for n in (0, 1)]
    assert sentence(*others, seen(2, stack=BARRIER)).startswith(
        "rank 2 on vh3 waits in barrier, others in all_reduce"
    )


def test_the_odd_stack_is_named_where_no_collective_shows() -> None:
    """DDP waits within the backward pass: its frames name no collective."""
    others = [seen(n, stack=BACKWARD) for n in (0, 2)]
    assert sentence(*others, seen(1, stack=LOADING)).startswith(
        "rank 1 on vh2 is in load_batch (data.py:17), unlike 2 other ranks"
    )


def test_the_idle_gpu_is_named_while_others_spin() -> None:
    """The collective's kernel keeps a GPU at 100 % while it waits."""
    ranks = [seen(n, gpu_busy=100) for n in (0, 1)]
    assert sentence(*ranks, seen(2, gpu_busy=0)) == (
        "rank 2 on vh3 leaves its GPU idle while 2 other GPUs are fully busy"
    )


def test_the_kernel_tells_who_sleeps() -> None:
    """Without py-spy: gloo waits in a futex, time.sleep in clock_nanosleep."""
    sleeper = seen(1, waits_in="clock_nanosleep")
    assert sentence(seen(0), sleeper, seen(2)) == (
        "rank 1 on vh2 is in clock_nanosleep, most others in futex"
    )
    assert sentence(seen(0), sleeper) == "rank 1 on vh2 sleeps (clock_nanosleep)"
    assert confidence(seen(0), sleeper) is HangConfidence.WEAK


def test_who_fell_silent_first_is_the_last_resort() -> None:
    ranks = [seen(0, quiet_s=61.0), seen(1, quiet_s=75.0), seen(2, quiet_s=62.0)]
    assert sentence(*ranks) == (
        "rank 1 on vh2 was the first rank to stop producing output (75 s ago, in futex)"
    )
    assert confidence(*ranks) is HangConfidence.WEAK


def test_only_suspects_are_blamed() -> None:
    """Rank 1 alone is silent; that rank 0 sleeps between two steps is its own affair."""
    ranks = [seen(0, waits_in="clock_nanosleep", quiet_s=1.0), seen(1), seen(2, quiet_s=5000.0)]
    assert sentence(*ranks).startswith("rank 0")
    found = blame_rank(on_nodes(*ranks), (1,))
    assert found is not None
    assert found.sentence == (
        "rank 1 on vh2 was the first rank to stop producing output (100 s ago, in futex)"
    )


def test_nothing_known_blames_nobody() -> None:
    assert blame_rank({}) is None
    assert blame_rank({"vh1": Inspection()}) is None


evidence = st.builds(
    RankEvidence,
    rank=st.integers(0, 7),
    pid=st.integers(1, 99),
    state=st.sampled_from(["", "R", "S", "D", "T", "t", "Z", "?"]),
    waits_in=st.sampled_from(["", "futex", "clock_nanosleep", "running"]),
    quiet_s=st.none() | st.floats(0, 1000),
    stack=st.sampled_from([(), ALL_REDUCE, BARRIER, LOADING, BACKWARD, ("odd",)]),
    collectives=st.sampled_from([(), at(5, 5), at(6, 5), at(6, 5, operation="broadcast")]),
    gpu_busy=st.none() | st.integers(0, 100),
)


@given(
    st.lists(evidence, max_size=8, unique_by=lambda found: found.rank),
    st.sets(st.integers(0, 7), max_size=3),
)
def test_what_is_confirmed_is_blamed_on_one_of_the_suspects(
    ranks: list[RankEvidence], suspects: set[int]
) -> None:
    if is_confirmed(suspects, 1.0, on_nodes(*ranks)):
        found = blame_rank(on_nodes(*ranks), suspects)
        assert found is not None
        assert not suspects or found.rank in suspects


@given(st.lists(evidence, max_size=8, unique_by=lambda found: found.rank))
def test_whatever_is_found_the_blame_names_a_rank_that_is_there(ranks: list[RankEvidence]) -> None:
    found = blame_rank(on_nodes(*ranks))
    if found is None:
        assert not ranks
        return
    assert found.rank in {r.rank for r in ranks}
    assert found.node == f"vh{(found.rank or 0) + 1}"
    stopped = {r.rank for r in ranks if r.state in ("T", "t")}
    assert not stopped or found.rank in stopped
