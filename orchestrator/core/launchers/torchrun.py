"""``torchrun``: one ``torch.distributed.run`` per node; every rank is wrapped in the rank shim."""

from __future__ import annotations

from orchestrator.core.launchers.launcher import RANK_SHIM, Share
from orchestrator.core.model.plan import ProcessPlan


def torchrun(share: Share) -> tuple[ProcessPlan, ...]:
    """Static rendezvous: the plan fixed every rank, nothing is elected. A node whose ranks are a
    world of their own meets at a port of its own choice.
    """
    argv = (
        share.interpreter,
        "-m",
        "torch.distributed.run",
        *(("--standalone",) if share.own_world else _meeting(share)),
        f"--nproc-per-node={len(share.ranks)}",
        "--max-restarts=0",
        "--no-python",
        *RANK_SHIM,
        share.interpreter,
        "-u",
        share.script,
        *share.arguments,
    )
    return (ProcessPlan(label="launcher", rank=None, argv=argv),)


def _meeting(share: Share) -> tuple[str, ...]:
    return (
        f"--nnodes={share.nodes}",
        f"--node-rank={share.node_rank}",
        f"--master-addr={share.master_addr}",
        f"--master-port={share.master_port}",
    )
