"""``torchrun``: one ``torch.distributed.run`` per node; every rank is wrapped in the rank shim."""

from __future__ import annotations

import math

from orchestrator.core.launchers.launcher import RANK_SHIM, Share, variable
from orchestrator.core.model.plan import ProcessPlan, Variable

# What torchrun writes besides the ranks' output, such as error files: without a place of its own it
# makes a folder in the node's temporary directory, which nothing ever removes.
LOG_DIR = "{attempt}/torchrun"
MARGIN_S = 5


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
        f"--log-dir={LOG_DIR}",
        "--no-python",
        *RANK_SHIM,
        *share.command,
    )
    return (ProcessPlan(label="launcher", rank=None, argv=argv, env=(_patience(share),)),)


def _patience(share: Share) -> Variable:
    """By itself torchrun kills ranks 30 s after it asked them to end, however long their grace."""
    seconds = math.ceil(share.grace_s) + MARGIN_S
    why = "ranks are killed when the grace of the run is over, not before"
    return variable("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(seconds), why)


def _meeting(share: Share) -> tuple[str, ...]:
    return (
        f"--nnodes={share.nodes}",
        f"--node-rank={share.node_rank}",
        f"--master-addr={share.master_addr}",
        f"--master-port={share.master_port}",
    )
