"""Counting a run's journal: what monitoring says of ranks, nodes, links and retries."""

from __future__ import annotations

from collections import Counter

from orchestrator.core.base.outcome import Exited, Signalled
from orchestrator.core.base.problem import Problem
from orchestrator.core.model.comm_modes import CommMode
from orchestrator.core.monitoring.run_samples import RunView, node_samples, run_samples
from orchestrator.core.monitoring.run_tally import Counted, RunTally
from orchestrator.core.run.connectivity import Classified, FabricProbed, Fault, LinksBroken
from orchestrator.core.run.events import (
    Connected,
    Divided,
    Failed,
    Launched,
    NodeConcluded,
    NodeLost,
    Phase,
    RankExited,
    RankStarted,
    RoundClosed,
)
from orchestrator.core.run.kit_reports import EnergyReported, GpuEnergy

PROBLEM = Problem(id="OR-X-001", message="no heartbeat", remedy="look")


def tally(*events: Counted) -> RunTally:
    found = RunTally()
    for event in events:
        found.add(event)
    return found


def up(node: str, *ranks: int) -> list[Counted]:
    started = [RankStarted(node=node, rank=rank, pid=100 + rank) for rank in ranks]
    return [Connected(node=node, seconds=0.1), Launched(node=node), *started]


def killed(node: str, rank: int, *, by_us: bool = False) -> RankExited:
    return RankExited(node=node, rank=rank, outcome=Signalled(9), at=1.0, by_us=by_us)


def values(run: RunTally, state: str = "running") -> dict[str, dict[tuple[str, ...], float]]:
    view = RunView(run_id="r1", state=state, tally=run)
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for sample in [*run_samples(view), *node_samples(view)]:
        found.setdefault(sample.metric.name, {})[sample.labels] = sample.value
    return found


def test_a_killed_rank_is_told_from_ranks_that_the_run_stopped() -> None:
    run = tally(*up("a", 0, 1), *up("b", 2), killed("a", 0), killed("b", 2, by_us=True))

    assert run.rank_states() == Counter(failed=1, running=1, stopped=1)


def test_another_attempt_begins_with_fresh_ranks_and_counts_as_a_retry() -> None:
    run = tally(*up("a", 0), killed("a", 0), NodeConcluded(node="a", clean=True), *up("a", 0))

    assert run.retries == 1
    assert run.rank_states() == Counter(running=1)
    assert run.node_states() == Counter(running=1)


def test_a_lost_node_stays_lost_until_it_is_connected_again() -> None:
    lost = [*up("a", 0), NodeLost(node="a", problem=PROBLEM)]

    assert values(tally(*lost))["orchestrate_node_up"] == {("r1", "a"): 0.0}
    assert values(tally(*lost, NodeConcluded(node="a", clean=True)))["orchestrate_node_up"] == {
        ("r1", "a"): 0.0
    }
    assert values(tally(*lost, *up("a", 0)))["orchestrate_node_up"] == {("r1", "a"): 1.0}


def test_outputs_that_did_not_come_make_no_node_unwell() -> None:
    collected = Failed(node="a", phase=Phase.COLLECT, problem=PROBLEM)
    prepared = Failed(node="a", phase=Phase.PREPARE, problem=PROBLEM)

    assert tally(*up("a", 0), collected).node_states()["failed"] == 0
    assert tally(*up("a", 0), prepared).node_states()["failed"] == 1


def test_links_and_modes_that_failed_are_counted_through_all_attempts() -> None:
    probe = FabricProbed(
        rung=CommMode.GLOO, ok=False, reason="dead", seconds=1, links=(("a", "b"),)
    )
    broken = LinksBroken(links=(("b", "a"), ("b", "c")), seconds=15, at=1.0)
    classified = Classified(attempt=1, fault=Fault.FABRIC, reason="links", links=(("b", "c"),))
    run = tally(probe, *up("a", 0), broken, classified, *up("a", 0))

    found = values(run)
    assert found["orchestrate_run_links_broken"][("r1",)] == 2
    assert found["orchestrate_run_fallbacks_total"][("r1",)] == 2


def test_a_fabric_that_is_slow_but_right_breaks_no_link() -> None:
    slow = FabricProbed(
        rung=CommMode.GLOO,
        ok=True,
        reason="slow",
        seconds=1,
        links=(("a", "b"),),
        busbw_gbps=1.5,
        floor_gbps=2.0,
    )
    found = values(tally(slow))

    assert found["orchestrate_run_links_broken"][("r1",)] == 0
    assert found["orchestrate_run_fabric_bus_bandwidth_bytes_per_second"][("r1",)] == 1.5e9
    assert found["orchestrate_run_fabric_floor_bytes_per_second"][("r1",)] == 2e9


def energy(window: int, *joules: float | None, asked: bool = True) -> EnergyReported:
    gpus = tuple(GpuEnergy(gpu=f"GPU-{n}", joules=value) for n, value in enumerate(joules))
    return EnergyReported(
        node="a", rank=0, window=window, seconds=5, asked=asked, final=False, gpus=gpus
    )


def test_energy_adds_up_over_windows_and_a_later_report_replaces_an_earlier_one() -> None:
    run = tally(energy(0, 10, 20), energy(0, 30, 40), energy(1, 1, 2), energy(2, asked=False))

    assert run.joules == 73
    assert tally(energy(0, 10, None)).joules is None


def test_what_is_left_of_divided_work_is_the_queue_of_a_live_run_alone() -> None:
    run = tally(Divided(total=100, done=60, failed=1, duplicates=3))

    assert values(run)["orchestrate_run_samples_queued"][("r1",)] == 39
    assert values(run, "failed")["orchestrate_run_samples_queued"][("r1",)] == 0
    assert values(run)["orchestrate_run_samples_total"] == {("r1", "done"): 60, ("r1", "failed"): 1}


def test_rounds_count_once_however_often_they_are_told() -> None:
    closed = RoundClosed(round=1, step=10, weights=(("a", 5),), bytes=70)

    found = values(tally(closed, closed))
    assert found["orchestrate_run_rounds_total"][("r1",)] == 1
    assert found["orchestrate_run_round_bytes_total"][("r1",)] == 70


def test_an_exit_with_another_code_than_zero_is_a_failure() -> None:
    ended = RankExited(node="a", rank=0, outcome=Exited(3), at=1.0)

    assert tally(*up("a", 0), ended).rank_states() == Counter(failed=1)
