"""The Slurm job of a run: what every node's share of the plan must agree on. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core.model.checks import NodeFinding
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.scheduled_node import ScheduledNode

NAME = "slurm"
WITHIN = "--jobid="  # srun's own option: an allocation that the user holds already
# How long a job may wait in Slurm's queue without --wait.
QUEUE_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmTask:
    """What Slurm is to start on one node. ``node`` is Slurm's name for it."""

    node: str
    interpreter: str
    cpus: int = 0
    gpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmJob:
    """``run_s`` None: as long as the partition allows. ``within``: the job that it is a step of."""

    name: str
    tasks: tuple[SlurmTask, ...]
    run_s: float | None = None
    wait_s: float = QUEUE_S
    exclusive: bool = False
    within: str = ""


def own_job(options: Sequence[str]) -> str:
    """The number of the user's own job; ``""``: ask Slurm for one."""
    given = [option.removeprefix(WITHIN) for option in options if option.startswith(WITHIN)]
    return given[-1] if given else ""


def make_job(
    request: RunRequest, findings: Mapping[str, NodeFinding], gpus: Mapping[str, int]
) -> SlurmJob:
    """The job for all nodes of a plan, in rank order; ``gpus`` = how many each node is to give."""
    budgets = request.budgets
    limit_s = None if budgets.run_s is None else budgets.run_s + budgets.grace_s
    return SlurmJob(
        name=f"{request.run_id}.{request.token}",
        tasks=tuple(_task(finding, gpus[name]) for name, finding in findings.items()),
        run_s=limit_s,
        wait_s=QUEUE_S if request.wait_s is None else request.wait_s,
        exclusive=request.exclusive,
        within=own_job(request.launcher_options),
    )


def find_conflict(finding: NodeFinding, used: Sequence[NodeFinding]) -> str | None:
    """Slurm starts one task per node: of two names for the same one the first counts."""
    node = finding.scheduled
    same = [f.facts.node for f in used if node and f.scheduled and f.scheduled.name == node.name]
    return f"it is Slurm's node {node.name}, as {same[0]} is" if node and same else None


def slurm_node_of(finding: NodeFinding) -> ScheduledNode:
    """As Slurm told; where it was not asked, as it is most often configured."""
    return finding.scheduled or ScheduledNode(name=finding.facts.hostname)


def _task(finding: NodeFinding, gpus: int) -> SlurmTask:
    """Slurm is asked for GPUs only where it manages them."""
    node = slurm_node_of(finding)
    return SlurmTask(
        node=node.name,
        interpreter=finding.interpreter,
        cpus=node.cpus,
        gpus=gpus if node.gpus else 0,
    )
