"""What a probe of the network puts to blame: exactly what was broken, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.outcome import Exited, Signalled, TimedOut
from orchestrator.core.fabric import pairing
from orchestrator.core.fabric.collective_result import (
    RankTrial,
    own_failures,
    trial_complaint,
    wrong_mode_reason,
)
from orchestrator.core.fabric.connection_matrix import (
    ALL_PAIRS,
    MOST_PEERS,
    failed_links,
    judge_matrix,
    peers_to_dial,
)
from orchestrator.core.fabric.fabric_verdict import FabricVerdict, Link
from orchestrator.core.fabric.floor import FLOORS, GIB, bus_bandwidth, floor_of
from orchestrator.core.fabric.probe_world import (
    probe_addresses,
    probe_environment,
    probe_processes,
    tried_ranks,
)
from orchestrator.core.model.comm_modes import CommMode
from orchestrator.core.model.facts import Facts, Gpu, Hca, Interface
from orchestrator.core.model.plan import Plan, Rendezvous, Variable
from tests.core.world import World, facts, request

TIMED_OUT = "timed out"


def names_of(count: int) -> list[str]:
    return [f"n{number:03}" for number in range(count)]


def matrix(names: list[str], cut: set[Link], most: int = ALL_PAIRS) -> dict[Link, str]:
    """What dialling finds when exactly the links in ``cut`` are broken."""
    wanted = peers_to_dial(names, all_up_to=most)
    links = [(start, end) for start, ends in wanted.items() for end in ends]
    return {link: TIMED_OUT if link in cut else "" for link in links}


def around(names: list[str], node: str, *, out: bool = True, into: bool = True) -> set[Link]:
    every = {(a, b) for a in names for b in names if a != b}
    return {(a, b) for a, b in every if (out and a == node) or (into and b == node)}


# ---- connections ---------------------------------------------------------------------------------


@given(st.integers(2, 20))
def test_a_healthy_mesh_blames_nobody(count: int) -> None:
    names = names_of(count)
    assert judge_matrix(names, matrix(names, set())) is None


@given(st.data(), st.integers(3, 70))
def test_a_dead_node_is_exactly_that(data: st.DataObject, count: int) -> None:
    names = names_of(count)
    bad = data.draw(st.sampled_from(names))
    found = judge_matrix(names, matrix(names, around(names, bad)))
    assert found is not None
    assert (found.culprits, found.links) == ((bad,), ())
    assert found.sentence.startswith(f"{bad} cannot open a TCP connection to ")


@given(st.data(), st.integers(5, 20))
def test_two_dead_nodes_are_both_named(data: st.DataObject, count: int) -> None:
    names = names_of(count)
    bad = data.draw(st.lists(st.sampled_from(names), min_size=2, max_size=2, unique=True))
    cut = around(names, bad[0]) | around(names, bad[1])
    found = judge_matrix(names, matrix(names, cut))
    assert found is not None
    assert (set(found.culprits), found.links) == (set(bad), ())


@given(st.data(), st.integers(3, 20), st.booleans())
def test_a_bad_link_is_exactly_that(data: st.DataObject, count: int, both: bool) -> None:
    """In both directions, or in one."""
    names = names_of(count)
    start, end = data.draw(st.lists(st.sampled_from(names), min_size=2, max_size=2, unique=True))
    cut = {(start, end), (end, start)} if both else {(start, end)}
    found = judge_matrix(names, matrix(names, cut))
    assert found is not None
    assert (found.culprits, set(found.links)) == ((), cut)
    assert ("one direction" in found.sentence) is not both


@given(st.data(), st.integers(3, 70), st.booleans())
def test_a_port_that_lets_only_one_direction_through(
    data: st.DataObject, count: int, into: bool
) -> None:
    names = names_of(count)
    bad = data.draw(st.sampled_from(names))
    found = judge_matrix(names, matrix(names, around(names, bad, into=into, out=not into)))
    assert found is not None
    assert (found.culprits, found.links) == ((bad,), ())
    assert ("keeps incoming" if into else "keeps outgoing") in found.sentence


@given(st.data(), st.integers(4, 16))
def test_groups_that_cannot_reach_each_other(data: st.DataObject, count: int) -> None:
    names = names_of(count)
    size = data.draw(st.integers(2, count - 2))
    first, second = names[:size], names[size:]
    cut = {(a, b) for a in first for b in second} | {(b, a) for a in first for b in second}
    found = judge_matrix(names, matrix(names, cut))
    assert found is not None
    assert (found.culprits, set(found.links)) == ((), cut)
    assert " | " in found.sentence


@given(st.integers(2, 12))
def test_nothing_works_is_nobodys_fault_alone(count: int) -> None:
    names = names_of(count)
    every = {(a, b) for a in names for b in names if a != b}
    found = judge_matrix(names, matrix(names, every))
    assert found is not None
    assert (found.culprits, set(found.links)) == ((), every)


@given(st.data(), st.integers(2, 9))
def test_whatever_is_broken_is_explained(data: st.DataObject, count: int) -> None:
    """Any pattern: each broken link is named, or one of its ends is."""
    names = names_of(count)
    every = [(a, b) for a in names for b in names if a != b]
    cut = set(data.draw(st.lists(st.sampled_from(every), unique=True)))
    found = judge_matrix(names, matrix(names, cut))
    assert (found is None) == (not cut)
    if found is not None:
        left = {link for link in cut if not set(link) & set(found.culprits)}
        assert left <= set(found.links) <= cut


def test_the_sentence_says_who_reaches_whom() -> None:
    names = ["vh1", "vh2", "vh3"]
    found = judge_matrix(names, matrix(names, around(names, "vh2")))
    assert found == FabricVerdict(
        sentence="vh2 cannot open a TCP connection to vh1 and vh3, which reach each other "
        "(timed out): the node or its port is at fault",
        culprits=("vh2",),
    )


@given(st.integers(2, 300))
def test_who_dials_whom_is_bounded(count: int) -> None:
    names = names_of(count)
    wanted = peers_to_dial(names)
    most = count - 1 if count <= ALL_PAIRS else MOST_PEERS
    called: dict[str, int] = dict.fromkeys(names, 0)
    for place, name in enumerate(names):
        assert len(set(wanted[name])) == len(wanted[name]) == most
        assert name not in wanted[name]
        assert names[(place + 1) % count] in wanted[name]
        for end in wanted[name]:
            called[end] += 1
    assert set(called.values()) == {most}


# ---- pairs of nodes ------------------------------------------------------------------------------


def tried(names: list[str], bad_nodes: set[str], bad_links: set[Link]) -> tuple[FabricVerdict, int]:
    """All rounds against planted faults: the verdict, and how many rounds there were."""
    results: dict[Link, str] = {}
    number = 0
    while pairs := pairing.next_round(names, results, number):
        busy = [name for pair in pairs for name in pair]
        assert len(set(busy)) == len(busy), "no node takes part in two at once"
        for pair in pairs:
            bad = bad_nodes & set(pair) or {pair, pair[::-1]} & bad_links
            results[pair] = "no answer" if bad else ""
        number += 1
    return pairing.judge_pairs(names, results, "all of them hang"), number


@given(st.data(), st.integers(3, 24))
def test_pairs_find_a_bad_node(data: st.DataObject, count: int) -> None:
    names = names_of(count)
    bad = data.draw(st.sampled_from(names))
    verdict, rounds = tried(names, {bad}, set())
    assert (verdict.culprits, verdict.links) == ((bad,), ())
    assert rounds <= 3


@given(st.data(), st.integers(8, 24))
def test_pairs_find_two_bad_nodes(data: st.DataObject, count: int) -> None:
    names = names_of(count)
    bad = data.draw(st.lists(st.sampled_from(names), min_size=2, max_size=2, unique=True))
    verdict, _ = tried(names, set(bad), set())
    assert (set(verdict.culprits), verdict.links) == (set(bad), ())


@given(st.data(), st.integers(3, 24))
def test_pairs_find_a_bad_link_of_the_ring(data: st.DataObject, count: int) -> None:
    names = names_of(count)
    at = data.draw(st.integers(0, count - 1))
    link = (names[at], names[(at + 1) % count])
    verdict, _ = tried(names, set(), {link})
    assert (verdict.culprits, verdict.links) == ((), (link,))


@given(st.integers(2, 24))
def test_pairs_that_all_work_blame_nobody(count: int) -> None:
    verdict, rounds = tried(names_of(count), set(), set())
    assert (verdict.culprits, verdict.links) == ((), ())
    assert f"all {count} together do not (all of them hang)" in verdict.sentence
    assert rounds <= 3


@given(st.integers(3, 24))
def test_pairs_that_all_fail_have_something_in_common(count: int) -> None:
    names = names_of(count)
    verdict, _ = tried(names, set(names), set())
    assert (verdict.culprits, verdict.links) == ((), ())
    assert "in common" in verdict.sentence


def test_two_nodes_are_one_pair() -> None:
    verdict, rounds = tried(["a", "b"], set(), {("a", "b")})
    assert (verdict.culprits, verdict.links, rounds) == ((), (("a", "b"),), 1)


# ---- trials --------------------------------------------------------------------------------------


def rank(number: int, stage: str = "measured", **fields: object) -> RankTrial:
    trial = RankTrial(node=f"n{number}", rank=number, outcome=Exited(0), stage=stage)
    return replace(trial, **fields)  # type: ignore[arg-type]


def test_the_rank_that_is_furthest_behind_is_quoted() -> None:
    hanging = [rank(0, "joined", outcome=Exited(3), error="no answer within 10 s")]
    late = rank(1, "met", outcome=TimedOut(10))
    why = rank(2, "met", outcome=Exited(3), error="connection closed by peer")
    assert trial_complaint([rank(0), rank(1)]) == ""
    assert trial_complaint([]) != ""
    told = trial_complaint([*hanging, late, why])
    assert told == "rank 2 on n2, joining the process group: connection closed by peer"
    assert trial_complaint([*hanging, late]).endswith("did not finish within 10 s")


def test_a_rank_that_cannot_even_start_is_no_fault_of_the_network() -> None:
    absent = rank(1, "started", outcome=Exited(1), error="No module named 'torch'")
    killed = rank(2, "started", outcome=Signalled(9))
    waiting = rank(0, "imported", outcome=TimedOut(9))
    slow = rank(3, "started", outcome=TimedOut(9))
    assert list(own_failures([waiting, absent, killed, slow])) == [absent, killed]


@pytest.mark.parametrize(
    "rung, networks, fallen",
    [
        (CommMode.NCCL_IB, ["IB", "IB"], False),
        (CommMode.NCCL_IB, ["IB", "Socket"], True),
        (CommMode.NCCL_IB, ["", ""], False),
        (CommMode.NCCL_SOCKET, ["Socket", "Socket"], False),
    ],
)
def test_infiniband_that_is_sockets_is_found_out(
    rung: CommMode, networks: list[str], fallen: bool
) -> None:
    ranks = [rank(n, network=name, detail="via x") for n, name in enumerate(networks)]
    assert bool(wrong_mode_reason(rung, ranks)) is fallen


# ---- how fast it should be -----------------------------------------------------------------------


def h200(gbit: float = 400.0, name: str = "NVIDIA H200") -> Facts:
    gpus = tuple(Gpu(index=i, name=name) for i in range(8))
    ports = tuple(
        Hca(name=f"mlx5_{i}", port=1, state="ACTIVE", link_layer="InfiniBand", rate_gbit=gbit)
        for i in range(8)
    )
    return replace(facts("n"), gpus=gpus, hcas=ports)


def test_bus_bandwidth_is_that_of_nccl_tests() -> None:
    assert bus_bandwidth(GIB, 16, 0.01) == pytest.approx(2 * 15 / 16 * GIB / 0.01 / 1e9)


def test_only_known_hardware_and_large_messages_have_a_floor() -> None:
    pair = [h200(), h200()]
    found = floor_of(pair, 16, CommMode.NCCL_IB, GIB)
    assert found is not None
    assert (found.gpu, found.busbw_gbps) == ("H200", 250.0)
    assert "cluster-health-scanner" in found.source
    assert floor_of(pair, 16, CommMode.NCCL_IB, GIB // 2) is None
    assert floor_of(pair, 8, CommMode.NCCL_IB, GIB) is None
    assert floor_of([*pair, h200()], 24, CommMode.NCCL_IB, GIB) is None
    assert floor_of(pair, 16, CommMode.NCCL_SOCKET, GIB) is None
    assert floor_of([h200(), h200(gbit=100.0)], 16, CommMode.NCCL_IB, GIB) is None
    assert floor_of([h200(), h200(name="NVIDIA H100 80GB HBM3")], 16, CommMode.NCCL_IB, GIB) is None
    assert (
        floor_of([h200(name="NVIDIA T4"), h200(name="NVIDIA T4")], 16, CommMode.NCCL_IB, GIB)
        is None
    )
    assert len({(f.gpu, f.nodes, f.ranks, f.rung) for f in FLOORS}) == len(FLOORS)


# ---- what is started -----------------------------------------------------------------------------


def planned() -> Plan:
    wanted = replace(request("a", "b"), launcher="direct")
    world = World(wanted)
    world.run()
    assert world.state.plan is not None
    return world.state.plan


def test_ranks_of_some_nodes_are_numbered_densely() -> None:
    plan = planned()
    share = replace(plan.nodes[0], ranks=(4, 5, 6), gpus=(0, 1))
    plan = replace(plan, nodes=(share, plan.nodes[1]), rung=CommMode.NCCL_SOCKET.value)
    made = probe_processes("all", plan, ["b", "a"], "10.0.0.9", 4000)
    assert tried_ranks(share) == (4, 5), "NCCL refuses two ranks on one GPU"
    env = {p.label: {v.name: v.value for v in p.env} for parts in made.values() for p in parts}
    assert [(label, e["RANK"], e["LOCAL_RANK"], e["WORLD_SIZE"]) for label, e in env.items()] == [
        ("trial-1", "0", "0", "3"),
        ("trial-4", "1", "0", "3"),
        ("trial-5", "2", "1", "3"),
    ]
    assert {(e["MASTER_ADDR"], e["MASTER_PORT"]) for e in env.values()} == {("10.0.0.9", "4000")}
    assert all("nccl" in p.argv for parts in made.values() for p in parts)


def test_variables_about_files_of_the_attempt_are_left_out() -> None:
    share = planned().nodes[0]
    file = Variable(name="TORCH_FR_DUMP_TEMP_FILE", value="{attempt}/x", origin="facts", reason="")
    kept = probe_environment(replace(share, env=(*share.env, file)))
    assert kept == share.env


def test_nodes_are_dialled_on_the_interface_that_the_ranks_use() -> None:
    plan = planned()
    met = Rendezvous(address="10.1.0.1", port=9, interfaces=(("a", "ib0"), ("b", "ib0")))
    card = Interface(name="ib0", up=True, addresses=("fe80::1", "fd00::2", "10.1.0.2"))
    b = facts("b")
    seen = {"a": facts("a"), "b": replace(b, interfaces=(*b.interfaces, card))}
    assert probe_addresses(replace(plan, rendezvous=met), seen) == {
        "a": "10.1.0.1",
        "b": "10.1.0.2",
    }
    six = replace(met, address="fd00::1")
    assert probe_addresses(replace(plan, rendezvous=six), seen) == {"a": "fd00::1", "b": "fd00::2"}
    unknown = replace(met, interfaces=())
    assert probe_addresses(replace(plan, rendezvous=unknown), seen)["b"] == b.route_address


def test_broken_links_are_listed_in_order() -> None:
    assert failed_links({("a", "b"): "x", ("b", "a"): "", ("a", "c"): "y"}) == [
        ("a", "b"),
        ("a", "c"),
    ]
