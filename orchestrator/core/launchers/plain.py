"""Launchers that need no launcher process: the supervisor itself starts one process per rank.

- ``direct``: with all that torchrun tells its ranks. No second import of torch; no restarts.
- ``manual``: independent workers. Each knows its number and how many there are, and meets nobody.
- ``command``: a plain command, of which is not known whether it meets others.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.launchers.launcher import (
    Launcher,
    LaunchSpec,
    launcher_variable,
    rendezvous_variables,
    torchrun_contract,
)
from orchestrator.core.launchers.torchrun import plan_torchrun
from orchestrator.core.model.plan import ProcessPlan, Variable

# torchrun has failed collectives end their rank, unless the user decides otherwise.
NCCL_ERRORS = "TORCH_NCCL_ASYNC_ERROR_HANDLING"


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
    return tuple(
        ProcessPlan(
            label=f"rank-{rank}",
            rank=rank,
            argv=spec.command,
            env=(
                *torchrun_contract(spec, local_rank, rank),
                *(_meeting_variables(spec, rank) if meeting else ()),
            ),
        )
        for local_rank, rank in enumerate(spec.ranks)
    )


def _meeting_variables(spec: LaunchSpec, rank: int) -> Iterator[Variable]:
    """The rendezvous, and what else torchrun tells ranks that are started once: libraries look
    there for who started them (``torch.distributed.is_torchelastic_launched``), and ``@record``
    for where to write an exception. There is no agent's store: rank 0 opens the one of the job.
    """
    yield from rendezvous_variables(spec)
    values = {
        "ROLE_NAME": "default",
        "ROLE_RANK": str(rank),
        "ROLE_WORLD_SIZE": str(spec.world_size),
        "TORCHELASTIC_RUN_ID": "none",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        "TORCHELASTIC_ERROR_FILE": f"{{attempt}}/rank-{rank}.error.json",
    }
    if NCCL_ERRORS not in spec.decided:
        values[NCCL_ERRORS] = "1"
    for name, value in values.items():
        yield launcher_variable(name, value, "as torchrun sets it")


DIRECT = Launcher(
    name="direct",
    processes=plan_direct,
    ranks_meet=True,
    needs_world=True,
    binds_ranks=True,
    containable=True,
)
MANUAL = Launcher(name="manual", processes=plan_manual, isolates_ranks=True, containable=True)
# The same processes; but what a plain command does with its ranks is not known.
COMMAND = Launcher(name="command", processes=plan_manual, containable=True)
