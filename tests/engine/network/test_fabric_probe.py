"""The fabric probe against nodes with planted faults: what is tried, concluded and remembered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from orchestrator.adapters.cache.json_cache import MOST
from orchestrator.adapters.cache.proven_fabrics import KEPT_S, Proven, ProvenFabrics
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.outcome import Exited, TimedOut
from orchestrator.core.fabric.fabric_verdict import Link
from orchestrator.core.model.comm_modes import CommMode
from orchestrator.core.model.plan import ProcessPlan, Variable
from orchestrator.core.run.connectivity import FabricProbed
from orchestrator.core.run.state import RunState
from orchestrator.engine.network import collective_trial as trying
from orchestrator.engine.network import fabric_probe as fabric
from orchestrator.engine.network.fabric_probe import probe_fabric
from orchestrator.engine.network.mesh import broken_links, dial_mesh, probe_links
from orchestrator.engine.node.trial_node import TrialNode
from orchestrator.engine.support.context import RunContext
from orchestrator.parsing.replies.reach_records import TcpResult
from orchestrator.parsing.replies.trial_records import TriedProcess
from tests.core.world import World, request

MEASURED = {"stage": "measured", "bytes": 1 << 20, "took": 0.01}


class Network:
    """Nodes that are asked to try things. ``cut`` links carry no TCP; ``bad`` nodes and pairs do
    not complete a collective; ``together`` is how many nodes at most do.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.hands = {name: Hand(name, self) for name in names}
        self.cut: set[Link] = set()
        self.bad: set[str] = set()
        self.bad_pairs: set[frozenset[str]] = set()
        self.together = 99
        self.mute = False
        self.network = ""
        self.trials: list[tuple[str, frozenset[str]]] = []
        self.groups: dict[tuple[str, str], dict[str, asyncio.Future[None]]] = {}

    def works(self, names: frozenset[str]) -> bool:
        pairs = any(pair <= names for pair in self.bad_pairs)
        return not (names & self.bad or pairs or len(names) > self.together)

    @property
    def nodes(self) -> Mapping[str, TrialNode]:
        return cast("Mapping[str, TrialNode]", self.hands)


class Hand:
    """What the probe needs of a node; its address tells its name."""

    def __init__(self, name: str, network: Network) -> None:
        self.name = name
        self.ports: set[int] = set()
        self.ended: set[str] = set()
        self.running: dict[str, asyncio.Event] = {}
        self._network = network

    async def listen(self) -> int:
        port = 1000 + 100 * ord(self.name) + len(self.ports)
        self.ports.add(port)
        return port

    async def release(self, port: int) -> bool:
        self.ports.remove(port)
        return True

    async def dial(self, targets: Sequence[tuple[str, int]], timeout_s: float) -> list[TcpResult]:
        del timeout_s
        ends = [chr((port - 1000) // 100) for _, port in targets]
        cut = self._network.cut
        bad = TcpResult(ok=False, error="timed out")
        return [bad if (self.name, end) in cut else TcpResult(ok=True) for end in ends]

    async def run_trial(
        self, name: str, processes: Sequence[ProcessPlan], env: Sequence[Variable], within_s: float
    ) -> tuple[TriedProcess, ...]:
        del env
        over = self.running[name] = asyncio.Event()
        (process,) = processes
        asked = {variable.name: str(variable.value) for variable in process.env}
        group = self._network.groups.setdefault((name, asked["MASTER_PORT"]), {})
        here = group[self.name] = asyncio.get_running_loop().create_future()
        if len(group) == int(asked["WORLD_SIZE"]):
            self._network.trials.append((name, frozenset(group)))
            del self._network.groups[name, asked["MASTER_PORT"]]
            for met in group.values():
                met.set_result(None)
        await here
        if self._network.mute:
            await over.wait()
            return (_process(process.label, TimedOut(within_s)),)
        if self._network.works(frozenset(group)):
            reduced = {"stage": "reduced", "network": self._network.network}
            return (_process(process.label, Exited(0), reduced, MEASURED),)
        error = {"stage": "error", "message": "no answer within 10 s"}
        return (_process(process.label, Exited(3), {"stage": "met"}, error),)

    async def end_trial(self, name: str) -> None:
        self.ended.add(name)
        if name in self.running:
            self.running[name].set()


def _process(label: str, outcome: Exited | TimedOut, *records: Mapping[str, Any]) -> TriedProcess:
    out = tuple(json.dumps(record) for record in records)
    return TriedProcess(label=label, outcome=outcome, out=out, err=())


class Clock:
    """Real time, and a wall clock that a test moves."""

    def __init__(self) -> None:
        self.at = 1_000_000.0

    def monotonic(self) -> float:
        return 0.0

    def wall(self) -> float:
        return self.at


class Bench:
    """A run on the nodes ``names``, about to prove its fabric."""

    def __init__(self, home: Path, names: str = "abcd", rung: CommMode = CommMode.GLOO) -> None:
        wanted = replace(request(*names), launcher="direct", fabric_probe=True)
        world = World(wanted)
        world.run()
        assert world.state.plan is not None
        plan = replace(world.state.plan, rung=rung.value)
        self.state: RunState = replace(world.state, plan=plan)
        self.network = Network(names)
        self.clock = Clock()
        self.home = home

    @property
    def context(self) -> RunContext:
        return RunContext(
            request=self.state.request,
            snapshot=None,
            folder=Layout(self.home).run("r1"),
            observers=[],
            clock=self.clock,
        )

    async def probe(self) -> FabricProbed:
        found = await probe_fabric(self.network.nodes, self.state, self.context)
        assert all(not hand.ports for hand in self.network.hands.values()), "ports are let go"
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_a_success_is_remembered_for_a_day(bench: Bench) -> None:
    first = await bench.probe()
    again = await bench.probe()
    assert (first.ok, first.cached, first.busbw_gbps) == (True, False, 0.157)
    assert (again.ok, again.cached, again.busbw_gbps) == (True, True, 0.157)
    assert [name for name, _ in bench.network.trials] == ["all"]
    bench.clock.at += KEPT_S + 1
    assert not (await bench.probe()).cached


async def test_it_is_proven_again_for_other_nodes_settings_or_on_request(bench: Bench) -> None:
    assert not (await bench.probe()).cached
    before = bench.state
    assert before.plan is not None
    bench.state = replace(before, request=replace(before.request, fabric_cache=False))
    assert not (await bench.probe()).cached
    node = before.nodes["b"]
    assert node.facts is not None
    rebooted = replace(node, facts=replace(node.facts, boot_id="another"))
    bench.state = replace(before, nodes=before.nodes.with_item("b", rebooted))
    assert not (await bench.probe()).cached
    setting = Variable(name="NCCL_ALGO", value="Tree", origin="user", reason="")
    share = before.plan.nodes[0]
    shares = (replace(share, env=(*share.env, setting)), *before.plan.nodes[1:])
    bench.state = replace(before, plan=replace(before.plan, nodes=shares))
    assert not (await bench.probe()).cached
    bench.state = before
    assert (await bench.probe()).cached


async def test_connections_that_fail_end_the_trial_at_once(bench: Bench) -> None:
    """The trial would hang for as long as its deadline; it is told to end, and waited for."""
    bench.network.mute = True
    bench.network.cut = {("b", "c"), ("c", "b")}
    found = await bench.probe()
    assert not found.ok
    assert set(found.links) == {("b", "c"), ("c", "b")}
    assert {name for name, hand in bench.network.hands.items() if "all" in hand.ended} == {*"abcd"}
    bench.network.cut, bench.network.mute = set(), False
    assert not (await bench.probe()).cached, "failures are not remembered"
    bench.network.cut = {("a", "b")}
    assert await broken_links(bench.network.nodes, bench.state) == (("a", "b"),)


async def test_why_the_head_is_not_reached_is_found_between_all_nodes(bench: Bench) -> None:
    """Both directions, and that either end reaches others: the link is to blame, not the head."""
    bench.network.cut = {("a", "c"), ("c", "a")}
    plan = bench.state.plan
    assert plan is not None
    unmet = replace(bench.state, plan=replace(plan, rendezvous=None))
    found = await probe_links(bench.network.nodes, unmet, bench.context)
    assert set(found.links) == bench.network.cut
    assert found.reason.startswith("a and c cannot open a TCP connection to each other")
    bench.network.cut = set()
    assert (await probe_links(bench.network.nodes, unmet, bench.context)).reason == ""


async def test_one_address_that_answers_is_a_connection(bench: Bench) -> None:
    """Of a node with several; else the first one's error is told."""
    hands = bench.network.hands
    answers = {"10.0.0.1": "timed out", "10.0.0.2": "", "10.0.0.3": "no route"}

    async def dialled(targets: Sequence[tuple[str, int]], _: float) -> list[TcpResult]:
        return [TcpResult(ok=not answers[at], error=answers[at]) for at, _ in targets]

    hands["a"].dial = dialled  # type: ignore[method-assign, assignment]
    at = {"b": ["10.0.0.1", "10.0.0.2"], "c": ["10.0.0.3", "10.0.0.1"]}
    found = await dial_mesh(bench.network.nodes, at, {"b": 1, "c": 2}, {"a": ["b", "c"]}, 1.0)
    assert {link: (r.ok, r.error) for link, r in found.items()} == {
        ("a", "b"): (True, ""),
        ("a", "c"): (False, "no route"),
    }


async def test_a_node_that_completes_no_collective_is_found_by_pairs(bench: Bench) -> None:
    bench.network.bad = {"c"}
    found = await bench.probe()
    assert (found.ok, found.culprits, found.links) == (False, ("c",), ())
    assert "no answer within 10 s" in found.reason
    rounds: dict[str, set[frozenset[str]]] = {}
    for name, names in bench.network.trials:
        rounds.setdefault(name, set()).add(names)
    assert list(rounds) == ["all", "pair-0", "pair-1"]
    assert rounds["pair-0"] == {frozenset("ab"), frozenset("cd")}


async def test_a_link_that_carries_tcp_only_is_found_by_pairs(bench: Bench) -> None:
    bench.network.bad_pairs = {frozenset("bc")}
    found = await bench.probe()
    assert (found.ok, found.culprits, found.links) == (False, (), (("b", "c"),))


async def test_all_together_may_fail_where_pairs_do_not(bench: Bench) -> None:
    bench.network.together = 3
    found = await bench.probe()
    assert (found.ok, found.culprits, found.links) == (False, (), ())
    assert "each of 4 pairs of nodes completes" in found.reason


async def test_two_nodes_are_not_tried_twice(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "ab")
    bench.network.bad = {"b"}
    found = await bench.probe()
    assert (found.ok, found.links) == (False, (("a", "b"),))
    assert [name for name, _ in bench.network.trials] == ["all"]


@pytest.mark.parametrize("network", ["IB", "Socket"])
async def test_infiniband_must_be_what_is_used(tmp_path: Path, network: str) -> None:
    bench = Bench(tmp_path, rung=CommMode.NCCL_IB)
    bench.network.network = network
    found = await bench.probe()
    assert found.ok is (network == "IB")
    assert ("does not use InfiniBand" in found.reason) is (network == "Socket")


async def test_what_takes_too_long_is_a_verdict(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the phase's budget is over, and without leaving anything under way."""
    monkeypatch.setattr(trying, "END_S", 0.05)
    monkeypatch.setattr(fabric, "SHARE_OF_BUDGET", 0.001)
    bench.network.mute = True
    found = await bench.probe()
    assert not found.ok
    assert "an all-reduce over 4 ranks on 4 nodes did not come to an end" in found.reason
    assert all("all" in hand.ended for hand in bench.network.hands.values())


def test_the_cache_is_bounded_and_trusts_nobody(tmp_path: Path) -> None:
    kept = ProvenFabrics(tmp_path / "fabric")
    one = Proven(at=5.0, busbw_gbps=1.5, note="x")
    for number in range(MOST + 20):
        kept.keep({"n": number}, one)
    assert len(list((tmp_path / "fabric").iterdir())) == MOST
    newest = {"n": MOST + 19}
    assert kept.find(newest, 6.0) == one
    assert kept.find(newest, 4.0) is None, "kept by a clock that is ahead of ours"
    assert kept.find({"n": -1}, 6.0) is None
    for path in (tmp_path / "fabric").iterdir():
        path.write_text('{"at": "x", "busbw_gbps": []}')
    assert kept.find(newest, 6.0) is None
    (tmp_path / "file").write_text("")
    ProvenFabrics(tmp_path / "file").keep(newest, one)
