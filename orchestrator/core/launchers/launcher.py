"""What every launcher is: its traits, and a pure function from a node's place to its processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.core.base.command import Text
from orchestrator.core.launchers.launcher_error import LauncherError
from orchestrator.core.launchers.launcher_option import LauncherOption
from orchestrator.core.launchers.scheduler import Scheduler
from orchestrator.core.model.plan import ProcessPlan, Variable
from orchestrator.core.tuning import LAUNCHER


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """What a launcher needs to know of one node. ``command`` is what every rank is to execute;
    ``interpreter`` is the Python for the launcher's own programs.

    ``per_node_world``: the node's ranks are a world of their own, and meet no rank of another node.
    ``apart``: it does not need the other nodes; nor its ranks each other, if they are no world.
    ``names``: all nodes of the plan, in rank order; ``gpus`` and ``addresses`` are theirs.
    ``options``: what the user passes on to it. ``token``: what only the nodes of this run know.
    ``job``: what the launcher's scheduler planned, if it has one. ``grace_s``: how long ranks
    have between the request to end and KILL. ``decided``: names of variables that ranks have in
    any case.
    """

    node: str
    node_rank: int
    names: tuple[str, ...]
    ranks: tuple[int, ...]
    world_size: int
    interpreter: str
    command: tuple[str, ...]
    master_addr: str
    master_port: str
    per_node_world: bool = False
    apart: bool = False
    gpus: tuple[tuple[int, ...], ...] = ()
    addresses: tuple[tuple[str, ...], ...] = ()
    options: tuple[str, ...] = ()
    token: str = ""
    job: object = None
    grace_s: float = 10.0
    decided: frozenset[str] = frozenset()

    @property
    def nodes(self) -> int:
        return len(self.names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """What starts ranks, with all that planning must know of it.

    ``processes``: from a node's place in the world to what its supervisor starts.
    ``ranks_meet``: at a rendezvous, unless the communication mode keeps their nodes apart.
    ``isolates_ranks``: they know of no others, not even on their own node.
    ``needs_world``: it cannot start ranks without making a world of them.
    ``binds_ranks``: our supervisor or shim starts them, and binds them to processors.
    ``knows_addresses``: its processes are given those of all nodes, which must be known by then.
    ``makes_nodes``: that is all it does; what starts the ranks there is chosen as by ``auto``.
    ``containable``: its processes may run in a container that the supervisor starts.
    ``modules``: what the ranks' interpreter must import for it, whatever the workload needs.
    ``requirement``: what brings them into an environment that is built for the ranks.
    ``options``: of the command line, for it alone. ``errors``: by the ids that its processes write.
    ``why``: the reason for it that the options it is passed give; None = no particular one.
    """

    name: str
    processes: Callable[[LaunchSpec], tuple[ProcessPlan, ...]]
    ranks_meet: bool = False
    isolates_ranks: bool = False
    needs_world: bool = False
    binds_ranks: bool = False
    knows_addresses: bool = False
    makes_nodes: bool = False
    containable: bool = False
    modules: tuple[str, ...] = ()
    requirement: str = ""
    options: tuple[LauncherOption, ...] = ()
    errors: Mapping[str, LauncherError] = field(default_factory=dict)
    why: Callable[[tuple[str, ...]], str | None] = lambda _: None
    scheduler: Scheduler | None = None


# The agent's own wrapper of a rank: it records how the rank ended, whatever the launcher tells.
RANK_SHIM = ("{agent_python}", "-I", "-S", "{agent}/process/rank_shim.py", "--")


# What torchrun sets for its ranks, whatever their environment says.
SET_BY_TORCHRUN = frozenset(
    "RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE GROUP_RANK GROUP_WORLD_SIZE MASTER_ADDR"
    " MASTER_PORT".split()
)


def torchrun_contract(spec: LaunchSpec, local_rank: int, rank: int) -> Iterator[Variable]:
    """The variables that torchrun sets for a rank, its rendezvous excepted."""
    values = {
        "RANK": local_rank if spec.per_node_world else rank,
        "LOCAL_RANK": local_rank,
        "WORLD_SIZE": len(spec.ranks) if spec.per_node_world else spec.world_size,
        "LOCAL_WORLD_SIZE": len(spec.ranks),
        "GROUP_RANK": 0 if spec.per_node_world else spec.node_rank,
        "GROUP_WORLD_SIZE": 1 if spec.per_node_world else spec.nodes,
    }
    for name, value in values.items():
        yield launcher_variable(name, str(value), "torchrun's contract")


def set_by_launcher(kind: Launcher, processes: Iterable[ProcessPlan]) -> frozenset[str]:
    """The names of what each rank gets, whatever users set."""
    planned = {v.name for p in processes for v in p.env if v.origin == LAUNCHER}
    return SET_BY_TORCHRUN | planned if kind.ranks_meet else frozenset(planned)


def rendezvous_variables(spec: LaunchSpec) -> Iterator[Variable]:
    """Where the ranks meet, as torch.distributed's ``env://`` reads it."""
    yield launcher_variable("MASTER_ADDR", spec.master_addr, "torchrun's contract")
    yield launcher_variable("MASTER_PORT", spec.master_port, "torchrun's contract")


def launcher_variable(name: str, value: Text, reason: str) -> Variable:
    """One that the launcher sets."""
    return Variable(name=name, value=value, origin=LAUNCHER, reason=reason)
