"""``torchrun``: one ``torch.distributed.run`` per node; every rank is wrapped in the rank shim."""

from __future__ import annotations

from orchestrator.core.launchers.launcher import RANK_SHIM, LaunchSpec
from orchestrator.core.model.plan import ProcessPlan


def torchrun(spec: LaunchSpec) -> tuple[ProcessPlan, ...]:
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
        "--no-python",
        *RANK_SHIM,
        spec.interpreter,
        "-u",
        spec.script,
        *spec.arguments,
    )
    return (ProcessPlan(label="launcher", rank=None, argv=argv),)


def _meeting(spec: LaunchSpec) -> tuple[str, ...]:
    return (
        f"--nnodes={spec.nodes}",
        f"--node-rank={spec.node_rank}",
        f"--master-addr={spec.master_addr}",
        f"--master-port={spec.master_port}",
    )
