"""Who acts for an attempt outside of its own processes: schedulers that may give it this node, and
engines that keep its containers.

A scheduler has a row here and a folder of its own beside this one. The question about a node, and
the file of an attempt that records a job, go by its name.
"""

from __future__ import annotations

import importlib
import os

from orchestrator.node_agent.base.node_layout import AttemptLayout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class NodeScheduler:
    """``tools``: the module whose ``describe_node`` answers what the coordinator asks of this node;
    ``jobs``: the one whose ``release_job`` ends what an attempt holds. ``variables``: where the
    scheduler's own commands look for their settings.
    """

    def __init__(self, tools: str, jobs: str, variables: tuple[str, ...] = ()) -> None:
        self.tools = tools
        self.jobs = jobs
        self.variables = variables


SCHEDULERS = {"slurm": NodeScheduler("slurm.slurm_tools", "slurm.slurm_jobs", ("SLURM_CONF",))}
# The operation that asks about this node: the module and the function that answer.
QUESTIONS = {name: (each.tools, "describe_node") for name, each in SCHEDULERS.items()}
# Who may have to end something, by the name of its record, and the module whose `release_job` does.
HOLDERS = {name: each.jobs for name, each in SCHEDULERS.items()}
HOLDERS["containers"] = "containers.container_jobs"
VARIABLES = frozenset(name for each in SCHEDULERS.values() for name in each.variables)


def job_record(attempt: AttemptLayout, holder: str) -> str:
    """Where an attempt records what it asked ``holder`` for."""
    return os.path.join(attempt.root, holder + ".json")


def release_jobs(attempt: AttemptLayout) -> list[dict[str, object]]:
    """End what the attempt asked others for; what is still there, as survivors are told."""
    left: list[dict[str, object]] = []
    for name, module in HOLDERS.items():
        if os.path.exists(job_record(attempt, name)):
            jobs: Any = importlib.import_module("orchestrator.node_agent." + module)
            left += jobs.release_job(attempt)
    return left
