"""``torchrun``: one ``torch.distributed.run`` per node; every rank is wrapped in the rank shim."""

from __future__ import annotations

import math

from orchestrator.core.launchers.launcher import RANK_SHIM, Launcher, LaunchSpec, launcher_variable
from orchestrator.core.model.plan import ProcessPlan, Variable

# What torchrun writes besides the ranks' output, such as error files: without a place of its own it
# makes a folder in the node's temporary directory, which nothing ever removes.
LOG_DIR = "{attempt}/torchrun"
MARGIN_S = 5


def plan_torchrun(spec: LaunchSpec) -> tuple[ProcessPlan, ...]:
    """Static rendezvous: the plan fixed every rank, nothing is elected. A node whose ranks are a
    world of their own meets at a port of its own choice.
    """
    argv = (
        spec.interpreter,
        "-m",
        "torch.distributed.run",
        *(("--standalone",) if spec.per_node_world else _meeting(spec)),
        f"--nproc-per-node={len(spec.ranks)}",
        "--max-restarts=0",
        f"--log-dir={LOG_DIR}",
        "--no-python",
        *RANK_SHIM,
        *spec.command,
    )
    return (ProcessPlan(label="launcher", rank=None, argv=argv, env=(_patience(spec),)),)


def _patience(spec: LaunchSpec) -> Variable:
    """By itself torchrun kills ranks 30 s after it asked them to end, however long their grace."""
    seconds = math.ceil(spec.grace_s) + MARGIN_S
    why = "ranks are killed when the grace of the run is over, not before"
    return launcher_variable("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(seconds), why)


def _meeting(spec: LaunchSpec) -> tuple[str, ...]:
    return (
        f"--nnodes={spec.nodes}",
        f"--node-rank={spec.node_rank}",
        f"--master-addr={spec.master_addr}",
        f"--master-port={spec.master_port}",
    )


TORCHRUN = Launcher(
    name="torchrun",
    processes=plan_torchrun,
    ranks_meet=True,
    needs_world=True,
    binds_ranks=True,
    containable=True,
    modules=("torch",),
)
