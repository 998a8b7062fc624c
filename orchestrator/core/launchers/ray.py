"""``ray``: one Ray actor per node runs the node's ranks, each of them under the rank shim.

Where ranks meet, the nodes form one Ray cluster of the run's own, at the rendezvous, and the head's
process drives it. Nodes that work apart have a cluster each, so that none needs another. With an
address the actors are placed in a Ray cluster that is there already.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

from orchestrator.core.base.command import Secret, Text
from orchestrator.core.launchers.launcher import (
    RANK_SHIM,
    Launcher,
    LaunchSpec,
    launcher_variable,
    torchrun_contract,
)
from orchestrator.core.launchers.launcher_error import LauncherError
from orchestrator.core.launchers.launcher_option import LauncherOption, Misuse
from orchestrator.core.model.plan import ProcessPlan, Variable

OPTION = "ray-address="
LOOPBACK = "127.0.0.1"
PORT = re.compile(r"[0-9]{1,5}")
# Written by the process that joins a cluster; as node_agent/rank_env/ray_driver.py has it.
UNAUTHORISED = "OR-RAY-001"


def joined_cluster(options: tuple[str, ...]) -> str | None:
    """The Ray cluster to join, as ``host:port``; None for one of the run's own."""
    found = (option[len(OPTION) :] for option in options if option.startswith(OPTION))
    return next(found, None)


def plan_ray(spec: LaunchSpec) -> tuple[ProcessPlan, ...]:
    """One process per node: it starts or finds the node's part of the cluster; the head's, or the
    one of a node that works apart, also places the actors.
    """
    argv = (
        # -E: what PYTHONPATH adds is for the ranks, and may be called as a module of Ray's is.
        *(spec.interpreter, "-E", "-u", "{rank_env}/ray_world.py"),
        *_cluster(spec),
        *_driven(spec),
        *_ranks(spec),
        *("--", *RANK_SHIM, *spec.command),
    )
    return (ProcessPlan(label="launcher", rank=None, argv=argv, env=tuple(_secrets(spec))),)


def _cluster(spec: LaunchSpec) -> Iterator[str]:
    """Which cluster, and what the node is called in it."""
    address = joined_cluster(spec.options)
    if address is not None:
        yield f"--join={address}"
    else:
        yield "--scratch={scratch}"
        yield "--cluster=" + (f"{LOOPBACK}:0" if spec.apart else _meeting(spec))
        yield f"--resource={_resource(spec.node_rank)}"
        if spec.node_rank == 0 or spec.apart:
            yield "--head"
    if not spec.apart:
        yield f"--meeting={_meeting(spec)}"


def _driven(spec: LaunchSpec) -> Iterator[str]:
    """The nodes that this one places actors on: ``name,GPUs,known by...``. Ray knows a node by a
    resource in a cluster of the run's own, and by an address in one that was there before.
    """
    if not spec.apart and spec.node_rank != 0:
        return
    own = joined_cluster(spec.options) is None
    for rank, name in enumerate(spec.names):
        if spec.apart and rank != spec.node_rank:
            continue
        known_by = (_resource(rank),) if own else spec.addresses[rank]
        yield "--drive=" + ",".join((name, "+".join(map(str, spec.gpus[rank])), *known_by))


def _ranks(spec: LaunchSpec) -> Iterator[str]:
    """Each rank's part of the environment, where they meet, and what one failure means."""
    for local_rank, rank in enumerate(spec.ranks):
        pairs = (f"{v.name}={v.value}" for v in torchrun_contract(spec, local_rank, rank))
        yield "--rank=" + ",".join(pairs)
    if spec.per_node_world:
        yield f"--master={LOOPBACK}"
    elif spec.apart:
        yield "--independent"
    else:
        yield f"--master={spec.master_addr}"


def _meeting(spec: LaunchSpec) -> str:
    return f"{spec.master_addr}:{spec.master_port}"


def _resource(node_rank: int) -> str:
    """What pins an actor to its node in a cluster of the run's own."""
    return f"node-{node_rank}"


def _secrets(spec: LaunchSpec) -> Iterator[Variable]:
    """Without a token, whoever reaches a port of Ray's can run programs there."""
    if joined_cluster(spec.options) is not None or not spec.token:
        return
    token = hashlib.sha256(b"ray\0" + spec.token.encode()).hexdigest()
    values: tuple[tuple[str, Text], ...] = (
        ("RAY_AUTH_MODE", "token"),
        ("RAY_AUTH_TOKEN", Secret(token)),
    )
    for name, value in values:
        yield launcher_variable(name, value, "only this run's nodes may use its Ray cluster")


def find_misuse(address: str) -> Misuse | None:
    """Whether a Ray cluster can have this address."""
    host, _, port = address.rpartition(":")
    if host and PORT.fullmatch(port) and 0 < int(port) < 65536 and "," not in address:
        return None
    what = f"--ray-address {address!r} is not HOST:PORT"
    return Misuse(what=what, remedy="as `ray status` shows it: 10.0.0.1:6379")


def _why(options: tuple[str, ...]) -> str | None:
    cluster = joined_cluster(options)
    return cluster and f"to join the Ray cluster at {cluster}, as --ray-address says"


RAY = Launcher(
    name="ray",
    processes=plan_ray,
    ranks_meet=True,
    binds_ranks=True,
    knows_addresses=True,
    modules=("ray",),
    requirement="ray==2.60.0",  # pyproject.toml has the same build
    options=(
        LauncherOption(
            flag="--ray-address",
            name="ray_address",
            metavar="HOST:PORT",
            help="Join this Ray cluster, instead of starting one; implies --launcher ray.",
            find_misuse=find_misuse,
            pass_on=lambda values, _: tuple(f"{OPTION}{value}" for value in values),
            implies=True,
        ),
    ),
    errors={
        UNAUTHORISED: LauncherError(
            remedy="--env RAY_AUTH_MODE=token --env RAY_AUTH_TOKEN=TOKEN (the cluster's is in "
            "~/.ray/auth_token of the user who started it)"
        )
    },
    why=_why,
)
