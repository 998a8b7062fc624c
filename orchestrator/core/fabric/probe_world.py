"""What is started on each node to try a collective: the ranks of the plan, or of some of its nodes,
with the environment that they will have. Pure.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence

from orchestrator.core.containers.containing import trial_command
from orchestrator.core.model.comm_modes import CommMode
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.plan import NodePlan, Plan, ProcessPlan, Variable
from orchestrator.core.tuning import LAUNCHER

PROGRAM = "{rank_env}/collective_probe.py"
GPU_BYTES = 1 << 30
CPU_BYTES = 1 << 20
WHY = "a collective that is only tried"


def tried_ranks(share: NodePlan) -> tuple[int, ...]:
    """One per GPU at most: NCCL refuses a second rank on one."""
    return share.ranks[: len(share.gpus)] if share.gpus else share.ranks


def probe_processes(
    trial: str, plan: Plan, names: Sequence[str], address: str, port: int
) -> Mapping[str, tuple[ProcessPlan, ...]]:
    """One process per rank of ``names``, numbered densely, meeting at ``address`` and ``port``; in
    containers where ranks are. ``trial``: no other one of the attempt is called so.
    """
    places = [(name, rank) for name in names for rank in tried_ranks(plan.node(name))]
    order = {place: number for number, place in enumerate(places)}
    gloo = plan.rung == CommMode.GLOO
    what = ("gloo", str(CPU_BYTES)) if gloo else ("nccl", str(GPU_BYTES))
    made: dict[str, tuple[ProcessPlan, ...]] = {}
    for name in names:
        share = plan.node(name)
        ranks = tried_ranks(share)
        made[name] = tuple(
            ProcessPlan(
                label=f"trial-{rank}",
                rank=None,
                argv=trial_command(
                    share, f"{trial}-{rank}", (share.interpreter, "-u", PROGRAM, *what)
                ),
                env=tuple(
                    Variable(name=key, value=str(value), origin=LAUNCHER, reason=WHY)
                    for key, value in {
                        "RANK": order[name, rank],
                        "WORLD_SIZE": len(places),
                        "LOCAL_RANK": local,
                        "LOCAL_WORLD_SIZE": len(ranks),
                        "MASTER_ADDR": address,
                        "MASTER_PORT": port,
                    }.items()
                ),
            )
            for local, rank in enumerate(ranks)
        )
    return made


def probe_environment(share: NodePlan) -> tuple[Variable, ...]:
    """The node's variables, but for those that leave files with the attempt, which is not begun."""
    files = {"TORCH_NCCL_DUMP_ON_TIMEOUT"}
    return tuple(v for v in share.env if v.name not in files and "{attempt}" not in str(v.value))


def probe_addresses(plan: Plan, facts: Mapping[str, Facts]) -> Mapping[str, str]:
    """Where each node of the plan is reached by the others: on the interface that the ranks use."""
    assert plan.rendezvous is not None
    met, interfaces = plan.rendezvous.address, dict(plan.rendezvous.interfaces)
    found = {
        share.name: _node_address(facts[share.name], interfaces.get(share.name), met)
        for share in plan.nodes
    }
    return {**found, plan.head.name: met}


def _node_address(facts: Facts, interface: str | None, like: str) -> str:
    """Of the interface, and of the family of ``like``; else the one that SSH came in by."""
    own = (a for i in facts.interfaces if i.name == interface for a in i.addresses)
    fitting = (address for address in own if _address_family(address) == _address_family(like))
    return next(fitting, facts.route_address)


def _address_family(address: str) -> int:
    """4, 6, or 0 for what is no address or reaches no other subnet."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return 0
    return 0 if parsed.is_link_local else parsed.version
