"""Who may give this node to an attempt: every scheduler that the node's agent can ask.

One has a folder of its own beside this one. Its ``*_tools`` module answers what the coordinator
asks of the node, its ``*_jobs`` module ends what an attempt holds.
"""

from __future__ import annotations

import importlib
import os

from orchestrator.node_agent.base.node_layout import AttemptLayout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The operation that asks about this node: the module and the function that answer.
QUESTIONS = {"slurm": ("slurm.slurm_tools", "describe_node")}
# The file of an attempt that records a job, and the module whose `release_job` ends that.
RECORDS = {"slurm.json": "slurm.slurm_jobs"}
# Where a scheduler's own commands look for their settings.
VARIABLES = frozenset({"SLURM_CONF"})


def release_jobs(attempt: AttemptLayout) -> list[dict[str, object]]:
    """End what the attempt asked schedulers for; what is still there, as survivors are told."""
    left: list[dict[str, object]] = []
    for record, module in RECORDS.items():
        if os.path.exists(os.path.join(attempt.root, record)):
            jobs: Any = importlib.import_module("orchestrator.node_agent." + module)
            left += jobs.release_job(attempt)
    return left
