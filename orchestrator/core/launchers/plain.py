"""Launchers that need no launcher process: the supervisor itself starts one process per rank.

- ``direct``: with torchrun's environment contract. No second import of torch; no elastic restarts.
- ``manual``: independent workers. Each knows its number and how many there are, and meets nobody.
- ``command``: the same for a program that is no Python script.
"""

from __future__ import annotations

from orchestrator.core.launchers.launcher import Share, contract, rendezvous
from orchestrator.core.launchers.torchrun import torchrun
from orchestrator.core.model.plan import ProcessPlan


def direct(share: Share) -> tuple[ProcessPlan, ...]:
    """One process per rank, with the variables that torchrun would set.

    Ranks of one node that are a world of their own need a port that only the node can choose: there
    torchrun does.
    """
    if share.own_world and len(share.ranks) > 1:
        return torchrun(share)
    meeting = not share.own_world
    return _per_rank(share, (share.interpreter, "-u", share.script), meeting=meeting)


def manual(share: Share) -> tuple[ProcessPlan, ...]:
    """One process per rank, without rendezvous."""
    return _per_rank(share, (share.interpreter, "-u", share.script), meeting=False)


def command(share: Share) -> tuple[ProcessPlan, ...]:
    """A plain program per rank, without rendezvous."""
    return _per_rank(share, share.program, meeting=False)


def _per_rank(share: Share, program: tuple[str, ...], *, meeting: bool) -> tuple[ProcessPlan, ...]:
    met = tuple(rendezvous(share)) if meeting else ()
    return tuple(
        ProcessPlan(
            label=f"rank-{rank}",
            rank=rank,
            argv=(*program, *share.arguments),
            env=(*contract(share, local_rank, rank), *met),
        )
        for local_rank, rank in enumerate(share.ranks)
    )
