"""Proves the fabric with a real collective before the launch; names who is to blame if it fails.

TCP connections between all nodes are tried beside an all-reduce over all ranks. If connections
fail, their pattern tells node, port or link at once. If only the all-reduce does, pairs of nodes
try one, in rounds. What proved good is remembered for a while; what failed is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.adapters.cache.proven_fabrics import Proven, ProvenFabrics
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.fabric import pairing
from orchestrator.core.fabric.collective_result import (
    RankTrial,
    own_failures,
    trial_complaint,
    wrong_mode_reason,
)
from orchestrator.core.fabric.fabric_verdict import FabricVerdict, Link
from orchestrator.core.fabric.floor import Floor, bus_bandwidth, floor_of
from orchestrator.core.fabric.probe_world import probe_addresses, probe_environment, tried_ranks
from orchestrator.core.model.comm_modes import CommMode
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.plan import Plan
from orchestrator.core.run.connectivity import FabricProbed
from orchestrator.core.run.state import RunState
from orchestrator.engine.network.collective_trial import try_collective
from orchestrator.engine.network.mesh import probe_mesh
from orchestrator.engine.node.trial_node import TrialNode
from orchestrator.engine.support.context import RunContext

# Of the phase's budget, so that there is a verdict before it is over.
SHARE_OF_BUDGET = 0.9
TOO_FEW = 3


async def probe_fabric(
    nodes: Mapping[str, TrialNode], state: RunState, context: RunContext
) -> FabricProbed:
    """What came of it. Raises what links raise."""
    plan, clock = state.require_plan(), context.clock
    facts = {share.name: _node_facts(state, share.name) for share in plan.nodes}
    proven = ProvenFabrics(Layout(context.folder.path.parent.parent).fabrics)
    ground = _success_ground(state, plan, facts)
    rung = CommMode(plan.rung)
    known = proven.find(ground, clock.wall()) if state.request.fabric_cache else None
    if known is not None:
        return FabricProbed(
            rung=rung, ok=True, reason="", seconds=0.0, busbw_gbps=known.busbw_gbps, cached=True
        )
    began = clock.monotonic()
    hands = {share.name: nodes[share.name] for share in plan.nodes}
    found = await _probe_within(_Probe(hands, plan, facts, context), state.request.budgets.fabric_s)
    seconds = round(clock.monotonic() - began, 3)
    if isinstance(found, FabricVerdict):
        return FabricProbed(
            rung=rung,
            ok=False,
            reason=found.sentence,
            seconds=seconds,
            culprits=found.culprits,
            links=found.links,
        )
    proven.keep(ground, Proven(at=clock.wall(), busbw_gbps=found.busbw_gbps, note=found.versions))
    floor = found.floor
    return FabricProbed(
        rung=rung,
        ok=True,
        reason=found.too_slow,
        seconds=seconds,
        busbw_gbps=found.busbw_gbps,
        floor_gbps=floor.busbw_gbps if floor is not None else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """An all-reduce that gave the right values, and how fast the largest one was."""

    size: int
    busbw_gbps: float | None
    floor: Floor | None
    versions: str

    @property
    def too_slow(self) -> str:
        """A sentence, if it is slower than such hardware should be. The rung stays in use: what
        comes below it would hardly be faster.
        """
        if self.floor is None or self.busbw_gbps is None:
            return ""
        if self.busbw_gbps >= self.floor.busbw_gbps:
            return ""
        return (
            f"the all-reduce reaches {self.busbw_gbps:.0f} GB/s, and should reach "
            f"{self.floor.busbw_gbps:.0f} GB/s ({self.floor.source})"
        )


async def _probe_within(probe: _Probe, budget_s: float) -> Measured | FabricVerdict:
    limit_s = SHARE_OF_BUDGET * budget_s
    try:
        async with asyncio.timeout(limit_s):
            return await probe.run()
    except TimeoutError:
        if not probe.trying:
            raise
        return FabricVerdict(
            sentence=f"{probe.trying} did not come to an end within {limit_s:.0f} s"
        )


class _Probe:
    """One probe. ``trying`` says what it is about."""

    def __init__(
        self,
        hands: Mapping[str, TrialNode],
        plan: Plan,
        facts: Mapping[str, Facts],
        context: RunContext,
    ) -> None:
        self.trying = ""
        self._hands = hands
        self._plan = plan
        self._facts = facts
        self._addresses = probe_addresses(plan, facts)
        self._context = context

    async def run(self) -> Measured | FabricVerdict:
        names = list(self._hands)
        count = sum(len(tried_ranks(share)) for share in self._plan.nodes)
        self.trying = f"an all-reduce over {count} ranks on {len(names)} nodes"
        self._context.note(f"fabric probe: {self.trying}")
        ranks = await self._all_together(names)
        if isinstance(ranks, FabricVerdict):
            return ranks
        for own in own_failures(ranks):
            return FabricVerdict(
                sentence=f"a collective cannot be tried on {own.node}: {trial_complaint([own])}",
                culprits=(own.node,),
            )
        failed = trial_complaint(ranks)
        if failed:
            return await self._find_culprit(names, failed)
        pretended = wrong_mode_reason(CommMode(self._plan.rung), ranks)
        return FabricVerdict(sentence=pretended) if pretended else self._measured(ranks)

    async def _all_together(self, names: Sequence[str]) -> list[RankTrial] | FabricVerdict:
        """What the ranks told; or, as soon as it is known, who cannot reach whom."""
        trial = asyncio.create_task(self._try("all", names))
        try:
            verdict = await probe_mesh(self._hands, self._addresses)
            return verdict if verdict is not None else await trial
        finally:
            trial.cancel()
            await asyncio.gather(trial, return_exceptions=True)

    async def _try(self, name: str, names: Sequence[str]) -> list[RankTrial]:
        address = self._addresses[names[0]]
        return await try_collective(name, self._hands, self._plan, names, address)

    async def _find_culprit(self, names: Sequence[str], failed: str) -> FabricVerdict:
        """Pairs of nodes, in rounds. Two nodes are a pair already."""
        results: dict[Link, str] = {}
        if len(names) < TOO_FEW:
            results[names[0], names[1]] = failed
            return pairing.judge_pairs(names, results, failed)
        self._context.note(f"fabric probe: {self.trying} failed: {failed}; now pairs of nodes")
        number = 0
        while pairs := pairing.next_round(names, results, number):
            tried = await asyncio.gather(*(self._try(f"pair-{number}", pair) for pair in pairs))
            results |= {pair: trial_complaint(r) for pair, r in zip(pairs, tried, strict=True)}
            number += 1
        return pairing.judge_pairs(names, results, failed)

    def _measured(self, ranks: Sequence[RankTrial]) -> Measured:
        size, seconds = ranks[0].size, ranks[0].seconds
        busbw = bus_bandwidth(size, len(ranks), seconds) if size and seconds else None
        facts = list(self._facts.values())
        return Measured(
            size=size,
            busbw_gbps=round(busbw, 3) if busbw else None,
            floor=floor_of(facts, len(ranks), CommMode(self._plan.rung), size),
            versions=ranks[0].versions,
        )


def _node_facts(state: RunState, name: str) -> Facts:
    facts = state.nodes[name].facts
    assert facts is not None, "a plan is made of facts"
    return facts


def _success_ground(state: RunState, plan: Plan, facts: Mapping[str, Facts]) -> dict[str, Any]:
    """All that a success depends on: another one of these, and it is to be proven again."""
    assert plan.rendezvous is not None
    interfaces = dict(plan.rendezvous.interfaces)
    return {
        "rung": plan.rung,
        "nodes": [
            {
                "name": share.name,
                "boot": facts[share.name].boot_id,
                "host": facts[share.name].host_id,
                "driver": facts[share.name].driver,
                "gpus": [gpu.uuid for gpu in facts[share.name].gpus],
                "used": list(share.gpus),
                "ranks": list(share.ranks),
                "interpreter": share.interpreter,
                "container": list(share.trial),
                "modules": _module_versions(state, share.name),
                "interface": interfaces.get(share.name),
                "hcas": [f"{hca.name}:{hca.port} {hca.state}" for hca in facts[share.name].hcas],
                "environment": {v.name: str(v.value) for v in probe_environment(share)},
            }
            for share in plan.nodes
        ],
    }


def _module_versions(state: RunState, name: str) -> dict[str, str]:
    prepared = state.nodes[name].prepared
    return dict(prepared.modules) if prepared is not None else {}
