"""What every launcher is: a pure function from a node's place in the world to its processes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from orchestrator.core.base.command import Text
from orchestrator.core.launchers.slurm_job import SlurmJob
from orchestrator.core.model.plan import ProcessPlan, Variable
from orchestrator.core.tuning import LAUNCHER


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What a launcher needs to know of one node. ``script`` is the entry's path on the node.

    ``own_world``: the node's ranks are a world of their own, and meet no rank of another node.
    ``apart``: it does not need the other nodes; nor its ranks each other, if they are no world.
    ``names``: all nodes of the plan, in rank order; ``gpus`` and ``addresses`` are theirs.
    ``options``: what the user passes on to it. ``token``: what only the nodes of this run know.
    ``job``: what Slurm is to be asked for, by the launcher that asks it.
    """

    node: str
    node_rank: int
    names: tuple[str, ...]
    ranks: tuple[int, ...]
    world_size: int
    interpreter: str
    script: str
    program: tuple[str, ...]
    arguments: tuple[str, ...]
    master_addr: str
    master_port: str
    own_world: bool = False
    apart: bool = False
    gpus: tuple[tuple[int, ...], ...] = ()
    addresses: tuple[tuple[str, ...], ...] = ()
    options: tuple[str, ...] = ()
    token: str = ""
    job: SlurmJob | None = None

    @property
    def nodes(self) -> int:
        return len(self.names)


Launcher = Callable[[Share], tuple[ProcessPlan, ...]]

# The agent's own wrapper of a rank: it records how the rank ended, whatever the launcher tells.
RANK_SHIM = ("{agent_python}", "-I", "-S", "{agent}/process/rank_shim.py", "--")


def contract(share: Share, local_rank: int, rank: int) -> Iterator[Variable]:
    """The variables that torchrun sets for a rank, its rendezvous excepted."""
    values = {
        "RANK": local_rank if share.own_world else rank,
        "LOCAL_RANK": local_rank,
        "WORLD_SIZE": len(share.ranks) if share.own_world else share.world_size,
        "LOCAL_WORLD_SIZE": len(share.ranks),
        "GROUP_RANK": 0 if share.own_world else share.node_rank,
        "GROUP_WORLD_SIZE": 1 if share.own_world else share.nodes,
    }
    for name, value in values.items():
        yield variable(name, str(value), "torchrun's contract")


def rendezvous(share: Share) -> Iterator[Variable]:
    """Where the ranks meet, as torch.distributed's ``env://`` reads it."""
    yield variable("MASTER_ADDR", share.master_addr, "torchrun's contract")
    yield variable("MASTER_PORT", share.master_port, "torchrun's contract")


def variable(name: str, value: Text, reason: str) -> Variable:
    """One that the launcher sets."""
    return Variable(name=name, value=value, origin=LAUNCHER, reason=reason)
