"""Launchers that need no launcher process: the supervisor itself starts one process per rank.

- ``direct``: with torchrun's environment contract. No second import of torch; no elastic restarts.
- ``manual``: independent workers. Each knows its number and how many there are, and meets nobody.
- ``command``: a plain command, of which is not known whether it meets others.
"""

from __future__ import annotations

from orchestrator.core.launchers.launcher import (
    Launcher,
    LaunchSpec,
    rendezvous_variables,
    torchrun_contract,
)
from orchestrator.core.launchers.torchrun import plan_torchrun
from orchestrator.core.model.plan import ProcessPlan


def plan_direct(spec: LaunchSpec) -> tuple[ProcessPlan, ...]:
    """One process per rank, with the variables that torchrun would set.

    Ranks of one node that are a world of their own need a port that only the node can choose: there
    torchrun does.
    """
    if spec.per_node_world and len(spec.ranks) > 1:
        return plan_torchrun(spec)
    return _per_rank(spec, meeting=not spec.per_node_world)


def plan_manual(spec: LaunchSpec) -> tuple[ProcessPlan, ...]:
    """One process per rank, without rendezvous."""
    return _per_rank(spec, meeting=False)


def _per_rank(spec: LaunchSpec, *, meeting: bool) -> tuple[ProcessPlan, ...]:
    met = tuple(rendezvous_variables(spec)) if meeting else ()
    return tuple(
        ProcessPlan(
            label=f"rank-{rank}",
            rank=rank,
            argv=spec.command,
            env=(*torchrun_contract(spec, local_rank, rank), *met),
        )
        for local_rank, rank in enumerate(spec.ranks)
    )


DIRECT = Launcher(name="direct", processes=plan_direct, ranks_meet=True, needs_world=True)
MANUAL = Launcher(name="manual", processes=plan_manual, isolates_ranks=True)
# The same processes; but what a plain command does with its ranks is not known.
COMMAND = Launcher(name="command", processes=plan_manual)
