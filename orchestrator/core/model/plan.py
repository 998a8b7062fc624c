"""The plan: exactly what will run where, as plain data. Made by
``plan``.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.base.command import Text
from orchestrator.core.base.wire_names import wire


@wire("Budgets")
@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """Deadlines in seconds, one per phase; ``run_s`` None lets the job run as long as it needs.

    ``silence_s``: a node whose link is broken for this long is lost. ``lease_s``: without news
    from the coordinator for this long, the node's supervisor ends the ranks by itself; None lets
    them go on until they are done. ``hang_s``: ranks that are silent for this long are looked at;
    None never looks. Ranks that report nothing through the kit only if ``hang_asked``. ``link_s``:
    links between nodes that stay broken for this long, while no rank makes progress, end the
    attempt; None never looks.
    """

    connect_s: float = 30.0
    probe_s: float = 30.0
    sync_s: float = 900.0
    prepare_s: float = 1800.0
    reach_s: float = 20.0
    fabric_s: float = 120.0
    launch_s: float = 30.0
    run_s: float | None = None
    grace_s: float = 10.0
    collect_s: float = 600.0
    clean_s: float = 60.0
    silence_s: float = 10.0
    lease_s: float | None = 60.0
    hang_s: float | None = 600.0
    link_s: float | None = 15.0
    hang_asked: bool = False


@wire("Variable")
@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """One environment variable of a node's ranks and where it came from.

    ``origin`` is ``user`` (inventory or ``--env``), ``nccl.conf`` (a file on the node), ``facts``
    (derived from the probe) or ``launcher``. ``rule`` names what derived it, ``evidence`` the facts
    that it followed from, ``reference`` the documentation.
    """

    name: str
    value: Text
    origin: str
    reason: str
    rule: str = ""
    evidence: str = ""
    reference: str = ""


@wire("ProcessPlan")
@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessPlan:
    """A process that the node's supervisor starts. ``rank`` None = a launcher that starts
    ranks itself, each under the rank shim: the end of a rank is recorded by one of the two.

    ``argv`` and ``env`` values may hold the placeholders that the node resolves: ``{snapshot}``,
    ``{output}``, ``{report}``, ``{checkpoints}``, ``{attempt}``, ``{agent}``; and ``{scratch}``, a
    directory with a short path, which is there only while the attempt runs.
    """

    label: str
    rank: int | None
    argv: tuple[str, ...]
    env: tuple[Variable, ...] = ()


@wire("Lock")
@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """Something of a machine that the run holds while it is there; ``shared`` with other runs."""

    name: str
    shared: bool = False


@wire("NodePlan")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """One node's share: its place in the world, its GPUs, environment, processes and locks.

    ``left`` are variables that are not set, and why not; with a value: files on the node set them.
    ``trial``: the words before the command of a trial, which starts in a container as ranks do.
    """

    name: str
    node_rank: int
    ranks: tuple[int, ...]
    gpus: tuple[int, ...]
    interpreter: str
    env: tuple[Variable, ...]
    processes: tuple[ProcessPlan, ...]
    locks: tuple[Lock, ...] = ()
    left: tuple[Variable, ...] = ()
    trial: tuple[str, ...] = ()


@wire("Exclusion")
@dataclass(frozen=True, slots=True, kw_only=True)
class Exclusion:
    """A node that was selected but is not used, and why. ``remedy``: what else than a repair helps,
    for a sentence to go on with.
    """

    node: str
    reason: str
    remedy: str = ""


@wire("PlannedRung")
@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedMode:
    """A rung of the ladder as intended: ``use``, ``next``, ``skip`` or ``failed``, and why."""

    rung: str
    intent: str
    reason: str


@wire("Rendezvous")
@dataclass(frozen=True, slots=True, kw_only=True)
class Rendezvous:
    """Where the ranks meet. ``interfaces`` names the interface that each node reached it
    through.
    """

    address: str
    port: int
    interfaces: tuple[tuple[str, str], ...] = ()


@wire("Plan")
@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What will run. ``assumed``: facts came from the inventory, not from the nodes.

    ``rendezvous`` None until a port was chosen and every node reached it. ``rung`` is the one of
    the ladder that is to be used; ``meets``: its ranks meet at the rendezvous; ``apart``: its nodes
    do not need each other, so that the loss of one does not end the others' work;
    ``proves_fabric``: a real collective over all ranks comes before the launch.
    """

    run_id: str
    cluster: str
    workload: str
    preset: str | None
    launcher: str
    launcher_reason: str
    world_size: int
    nodes: tuple[NodePlan, ...]
    excluded: tuple[Exclusion, ...]
    ladder: tuple[PlannedMode, ...]
    rung: str
    meets: bool
    apart: bool
    proves_fabric: bool
    warnings: tuple[str, ...]
    budgets: Budgets
    code: str
    rendezvous: Rendezvous | None = None
    assumed: bool = False

    @property
    def head(self) -> NodePlan:
        """The node of rank 0, where the rendezvous store lives."""
        return self.nodes[0]

    def node(self, name: str) -> NodePlan:
        """The share of the node called ``name``. Raises ``KeyError``."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)
