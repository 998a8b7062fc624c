"""``ray``: one Ray actor per node runs the node's ranks, each of them under the rank shim.

Where ranks meet, the nodes form one Ray cluster of the run's own, at the rendezvous, and the head's
process drives it. Nodes that work apart have a cluster each, so that none needs another. With an
address the actors are placed in a Ray cluster that is there already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from orchestrator.core.base.command import Secret, Text
from orchestrator.core.launchers.launcher import RANK_SHIM, Share, contract, variable
from orchestrator.core.model.plan import ProcessPlan, Variable

# What environments that are built for the ranks get; pyproject.toml has the same build.
REQUIREMENT = "ray==2.60.0"
OPTION = "ray-address="
LOOPBACK = "127.0.0.1"


def joined(options: tuple[str, ...]) -> str | None:
    """The Ray cluster to join, as ``host:port``; None for one of the run's own."""
    found = (option[len(OPTION) :] for option in options if option.startswith(OPTION))
    return next(found, None)


def ray(share: Share) -> tuple[ProcessPlan, ...]:
    """One process per node: it starts or finds the node's part of the cluster; the head's, or the
    one of a node that works apart, also places the actors.
    """
    program = share.program or (share.interpreter, "-u", share.script)
    argv = (
        # -E: what PYTHONPATH adds is for the ranks, and may be called as a module of Ray's is.
        *(share.interpreter, "-E", "-u", "{rank_env}/ray_world.py"),
        *_cluster(share),
        *_driven(share),
        *_ranks(share),
        *("--", *RANK_SHIM, *program, *share.arguments),
    )
    return (ProcessPlan(label="launcher", rank=None, argv=argv, env=tuple(_secrets(share))),)


def _cluster(share: Share) -> Iterator[str]:
    """Which cluster, and what the node is called in it."""
    address = joined(share.options)
    if address is not None:
        yield f"--join={address}"
    else:
        yield "--scratch={scratch}"
        yield "--cluster=" + (f"{LOOPBACK}:0" if share.apart else _meeting(share))
        yield f"--resource={_resource(share.node_rank)}"
        if share.node_rank == 0 or share.apart:
            yield "--head"
    if not share.apart:
        yield f"--meeting={_meeting(share)}"


def _driven(share: Share) -> Iterator[str]:
    """The nodes that this one places actors on: ``name,GPUs,known by...``. Ray knows a node by a
    resource in a cluster of the run's own, and by an address in one that was there before.
    """
    if not share.apart and share.node_rank != 0:
        return
    own = joined(share.options) is None
    for rank, name in enumerate(share.names):
        if share.apart and rank != share.node_rank:
            continue
        known_by = (_resource(rank),) if own else share.addresses[rank]
        yield "--drive=" + ",".join((name, "+".join(map(str, share.gpus[rank])), *known_by))


def _ranks(share: Share) -> Iterator[str]:
    """Each rank's part of the environment, where they meet, and what one failure means."""
    for local_rank, rank in enumerate(share.ranks):
        pairs = (f"{v.name}={v.value}" for v in contract(share, local_rank, rank))
        yield "--rank=" + ",".join(pairs)
    if share.own_world:
        yield f"--master={LOOPBACK}"
    elif share.apart:
        yield "--independent"
    else:
        yield f"--master={share.master_addr}"


def _meeting(share: Share) -> str:
    return f"{share.master_addr}:{share.master_port}"


def _resource(node_rank: int) -> str:
    """What pins an actor to its node in a cluster of the run's own."""
    return f"node-{node_rank}"


def _secrets(share: Share) -> Iterator[Variable]:
    """Without a token, whoever reaches a port of Ray's can run programs there."""
    if joined(share.options) is not None or not share.token:
        return
    token = hashlib.sha256(b"ray\0" + share.token.encode()).hexdigest()
    values: tuple[tuple[str, Text], ...] = (
        ("RAY_AUTH_MODE", "token"),
        ("RAY_AUTH_TOKEN", Secret(token)),
    )
    for name, value in values:
        yield variable(name, value, "only this run's nodes may use its Ray cluster")
