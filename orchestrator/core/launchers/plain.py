"""Launchers that need no launcher process: the supervisor itself starts one process per rank.

- ``direct``: with torchrun's environment contract. No second import of torch; no elastic restarts.
- ``manual``: independent workers. Each knows its number and how many there are, and meets nobody.
- ``command``: the same for a program that is no Python script.
"""

from __future__ import annotations

from orchestrator.core.launchers.launcher import LaunchSpec, contract, rendezvous
from orchestrator.core.launchers.torchrun import torchrun
from orchestrator.core.model.plan import ProcessPlan


def direct(spec: LaunchSpec) -> tuple[ProcessPlan, ...]:
    """One process per rank, with the variables that torchrun would set.

    Ranks of one node that are a world of their own need a port that only the node can choose: there
    torchrun does.
    """
    if spec.per_node_world and len(spec.ranks) > 1:
        return torchrun(spec)
    meeting = not spec.per_node_world
    return _per_rank(spec, (spec.interpreter, "-u", spec.script), meeting=meeting)


def manual(spec: LaunchSpec) -> tuple[ProcessPlan, ...]:
    """One process per rank, without rendezvous."""
    return _per_rank(spec, (spec.interpreter, "-u", spec.script), meeting=False)


def command(spec: LaunchSpec) -> tuple[ProcessPlan, ...]:
    """A plain program per rank, without rendezvous."""
    return _per_rank(spec, spec.program, meeting=False)


def _per_rank(
    spec: LaunchSpec, program: tuple[str, ...], *, meeting: bool
) -> tuple[ProcessPlan, ...]:
    met = tuple(rendezvous(spec)) if meeting else ()
    return tuple(
        ProcessPlan(
            label=f"rank-{rank}",
            rank=rank,
            argv=(*program, *spec.arguments),
            env=(*contract(spec, local_rank, rank), *met),
        )
        for local_rank, rank in enumerate(spec.ranks)
    )
