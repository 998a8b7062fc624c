"""Launchers: from a node's place in the world to the processes its supervisor starts. Pure.

Each launcher is a function ``(Share) -> processes``; :data:`LAUNCHERS` is the registry.

- ``torchrun``: one ``torch.distributed.run`` per node with static rendezvous; every rank is
  wrapped in the agent's rank shim, which records how it ended.
- ``direct``: the supervisor starts the ranks itself with torchrun's environment contract. No
  launcher process, hence no second import of torch; no elastic restarts.
- ``command``: a plain program, once per rank, without rendezvous.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.core.plan import ProcessPlan, Variable
from orchestrator.core.tuning import LAUNCHER


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a launcher needs to know of one node. ``script`` is the entry's path on the node."""

    node_rank: int
    nodes: int
    ranks: tuple[int, ...]
    world_size: int
    interpreter: str
    script: str
    program: tuple[str, ...]
    arguments: tuple[str, ...]
    master_addr: str
    master_port: str


# The agent's own wrapper of a rank: it records how the rank ended, whatever the launcher tells.
RANK_SHIM = ("{agent_python}", "-I", "-S", "{agent}/rank_shim.py", "--")

Launcher = Callable[[Share], tuple[ProcessPlan, ...]]


def torchrun(share: Share) -> tuple[ProcessPlan, ...]:
    """One torchrun per node. Static rendezvous: the plan fixed every rank, nothing is elected."""
    argv = (
        share.interpreter,
        "-m",
        "torch.distributed.run",
        f"--nnodes={share.nodes}",
        f"--node-rank={share.node_rank}",
        f"--nproc-per-node={len(share.ranks)}",
        f"--master-addr={share.master_addr}",
        f"--master-port={share.master_port}",
        "--max-restarts=0",
        "--no-python",
        *RANK_SHIM,
        share.interpreter,
        "-u",
        share.script,
        *share.arguments,
    )
    return (ProcessPlan(label="launcher", rank=None, argv=argv),)


def direct(share: Share) -> tuple[ProcessPlan, ...]:
    """One process per rank, with the variables that torchrun would set."""
    argv = (share.interpreter, "-u", share.script, *share.arguments)
    return tuple(
        ProcessPlan(
            label=f"rank-{rank}", rank=rank, argv=argv, env=_contract(share, local_rank, rank)
        )
        for local_rank, rank in enumerate(share.ranks)
    )


def command(share: Share) -> tuple[ProcessPlan, ...]:
    """A plain program per rank; ranks know their number and the world size, nothing else."""
    return tuple(
        ProcessPlan(
            label=f"rank-{rank}",
            rank=rank,
            argv=(*share.program, *share.arguments),
            env=tuple(v for v in _contract(share, i, rank) if not v.name.startswith("MASTER_")),
        )
        for i, rank in enumerate(share.ranks)
    )


LAUNCHERS: Mapping[str, Launcher] = {"torchrun": torchrun, "direct": direct, "command": command}

NEEDS_RENDEZVOUS = frozenset({"torchrun", "direct"})


def choose(requested: str, *, program: tuple[str, ...], has_torch: bool | None) -> tuple[str, str]:
    """(launcher, why). ``has_torch`` None = not known yet."""
    if requested != "auto":
        return requested, "asked for with --launcher"
    if program:
        return "command", "the job is a plain command, not a Python script"
    if has_torch is False:
        return "direct", "torch is not installed in the ranks' interpreter, so there is no torchrun"
    return "torchrun", "a Python script"


def _contract(share: Share, local_rank: int, rank: int) -> tuple[Variable, ...]:
    values = {
        "RANK": rank,
        "LOCAL_RANK": local_rank,
        "WORLD_SIZE": share.world_size,
        "LOCAL_WORLD_SIZE": len(share.ranks),
        "GROUP_RANK": share.node_rank,
        "GROUP_WORLD_SIZE": share.nodes,
        "MASTER_ADDR": share.master_addr,
        "MASTER_PORT": share.master_port,
    }
    return tuple(
        Variable(name=name, value=str(value), origin=LAUNCHER, reason="torchrun's contract")
        for name, value in values.items()
    )
