"""Ray clusters that runs keep up, and how a program gets into one: for people and for programs."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.core.base.nodeset import fold_nodeset
from orchestrator.core.model.inventory import Cluster, NodeSpec, TransportKind

DASHBOARD_PORT = 8265  # where Ray's own tools look for one


@dataclass(frozen=True, slots=True, kw_only=True)
class RayMember:
    """A node of the cluster. ``environment``: a file there that says how to use it. It has joined
    once that is known.
    """

    name: str
    cpus: int | None = None
    gpus: int | None = None
    environment: str = ""

    @property
    def joined(self) -> bool:
        return bool(self.environment) and self.cpus is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class RayClusterState:
    """What is known of one. ``address`` as ``RAY_ADDRESS`` has it, "" = not known yet; ``members``
    in rank order, so that the head is the first; ``dashboard``: its port on the head, 0 = none.
    """

    run_id: str
    state: str
    cluster: Cluster
    address: str = ""
    members: tuple[RayMember, ...] = ()
    dashboard: int = 0

    @property
    def ready(self) -> bool:
        """Whether every node of the plan has joined."""
        return bool(self.members) and all(member.joined for member in self.members)

    @property
    def missing(self) -> list[str]:
        """The nodes that have not joined."""
        return [member.name for member in self.members if not member.joined]

    @property
    def head(self) -> NodeSpec | None:
        return self.cluster.node(self.members[0].name) if self.members else None


def cluster_lines(known: RayClusterState) -> Iterator[str]:
    """One cluster: what it is, and what to type."""
    size = len(known.members)
    where = f"at {known.address}" if known.address else "is being started"
    yield f"Ray on {size} nodes of {known.cluster.name}, {_amounts(known.members)}, {where}"
    yield f"  run        {known.run_id} ({known.state})"
    if known.missing:
        yield f"  missing    {fold_nodeset(known.missing)}: orchestrate logs {known.run_id}"
    if known.members and known.members[0].joined:
        yield from _usage(known, known.members[0])
    yield f"  end        orchestrate ray down --cluster {shlex.quote(known.cluster.source)}"


def _amounts(members: Sequence[RayMember]) -> str:
    cpus = sum(member.cpus or 0 for member in members)
    gpus = sum(member.gpus or 0 for member in members)
    return f"{cpus} CPUs, {gpus} GPUs"


def _usage(known: RayClusterState, head: RayMember) -> Iterator[str]:
    program = f". {head.environment} && python PROGRAM.py"
    at = f"--cluster {shlex.quote(known.cluster.source)} --nodes {head.name}"
    yield f"  on {head.name:<8}{program}"
    yield f"  from here  orchestrate exec {at} --timeout 3600 -- sh -c {shlex.quote(program)}"
    if known.dashboard:
        tunnel, url = dashboard_way(known)
        yield f"  dashboard  {tunnel or '(on this machine)'}  # {url}"
    else:
        yield "  dashboard  none: Ray there was installed without it, pip install 'ray[default]'"


def dashboard_way(known: RayClusterState) -> tuple[str, str]:
    """A line for a shell here, "" where the head is this machine, and the address to open then."""
    spec = known.head
    assert spec is not None, "a dashboard has a head"
    if spec.transport is TransportKind.LOCAL:
        return "", f"http://127.0.0.1:{known.dashboard}"
    return spec.ssh.tunnel(DASHBOARD_PORT, known.dashboard), f"http://127.0.0.1:{DASHBOARD_PORT}"


def cluster_object(known: RayClusterState) -> dict[str, object]:
    """The same for programs."""
    tunnel, url = dashboard_way(known) if known.dashboard else ("", "")
    members = [
        {
            "name": member.name,
            "joined": member.joined,
            "cpus": member.cpus,
            "gpus": member.gpus,
            "environment": member.environment,
        }
        for member in known.members
    ]
    return {
        "run_id": known.run_id,
        "state": known.state,
        "cluster": known.cluster.name,
        "ready": known.ready,
        "address": known.address,
        "nodes": members,
        "dashboard": {"url": url, "tunnel": tunnel} if known.dashboard else None,
    }
