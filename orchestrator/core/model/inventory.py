"""What the owner declares: nodes, how to reach them, what they hold.

A :class:`Cluster` is what an inventory file says after validation. What a node really has is in
``core.model.facts``.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from orchestrator.core.base.command import Text
from orchestrator.core.base.wire_names import wire
from orchestrator.core.model.container import ContainerSpec
from orchestrator.core.model.pod_place import PodPlace


class Role(StrEnum):
    """What a node is for. A coordinator is contacted, but runs no rank."""

    WORKER = "worker"
    COORDINATOR = "coordinator"


class TransportKind(StrEnum):
    """How a node is reached. AUTO: by asyncssh, or by OPENSSH where ssh_config needs that."""

    ASYNCSSH = "asyncssh"
    PARAMIKO = "paramiko"
    OPENSSH = "openssh"
    AUTO = "auto"
    LOCAL = "local"
    KUBERNETES = "kubernetes"


# What an inventory may ask for: how a pod is reached follows from who made it.
DECLARED_TRANSPORTS = tuple(k for k in TransportKind if k is not TransportKind.KUBERNETES)
# These follow the ssh_config that we read; the others have ssh read its own, or none.
SSH_LIBRARIES = frozenset({TransportKind.ASYNCSSH, TransportKind.PARAMIKO})


@wire("SshEndpoint")
@dataclass(frozen=True, slots=True, kw_only=True)
class SshEndpoint:
    """How SSH finds a node. ``None`` leaves the choice to the user's ssh_config and its
    defaults.
    """

    host: str
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None
    jump: str | None = None
    ssh_config: str | None = None
    known_hosts: str | None = None

    @property
    def argv(self) -> tuple[str, ...]:
        """What OpenSSH's ``ssh`` must be given to go the same way; the destination is the last."""
        # 'ssh -J none' would still run a ProxyCommand of ssh_config.
        direct = (self.jump or "").lower() == "none"
        options = (
            ("-F", self.ssh_config),
            ("-i", self.identity_file),
            ("-p", self.port),
            ("-o", "ProxyCommand=none") if direct else ("-J", self.jump),
            ("-o", self.known_hosts and f'UserKnownHostsFile="{self.known_hosts}"'),
        )
        given = [word for option, value in options if value for word in (option, str(value))]
        return (*given, f"{self.user}@{self.host}" if self.user else self.host)

    def command(self, *options: str) -> str:
        """A line to paste into a shell: does the node let us in?"""
        return shlex.join(["ssh", *options, *self.argv, "true"])

    def tunnel(self, local: int, remote: int) -> str:
        """A line to paste into a shell: from a port here to one of the node's loopback."""
        forward = ("-N", "-o", "ExitOnForwardFailure=yes", "-L", f"{local}:127.0.0.1:{remote}")
        return shlex.join(["ssh", *forward, *self.argv])


@wire("GpuSpec")
@dataclass(frozen=True, slots=True, kw_only=True)
class GpuSpec:
    """Declared GPUs. ``count`` None = as many as are found; ``indices`` restricts to a subset."""

    count: int | None = None
    type: str | None = None
    indices: tuple[int, ...] | None = None


class PythonKind(StrEnum):
    """Where a node's Python environment comes from."""

    INTERPRETER = "interpreter"
    VENV = "venv"
    CONDA = "conda"
    REQUIREMENTS = "requirements"
    WORKLOAD = "workload"


@wire("PythonSpec")
@dataclass(frozen=True, slots=True, kw_only=True)
class PythonSpec:
    """The interpreter for ranks.

    ``value`` by ``kind``: INTERPRETER a program name or path; VENV a directory; CONDA an
    environment name or prefix; REQUIREMENTS a requirements file on the coordinator, built into
    an environment on the node and cached by its digest; WORKLOAD the same with the workload's
    own requirements file (``value`` empty; a workload without one runs under ``base``).
    ``base`` is the interpreter that environments are built with.
    """

    kind: PythonKind = PythonKind.INTERPRETER
    value: str = "python3"
    base: str = "python3"


@wire("Expectation")
@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """A figure that the owner recorded: a claim to check, not a truth."""

    metric: str
    value: float
    unit: str
    source: str


@wire("NodeSpec")
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSpec:
    """One declared node. ``workdir`` is where orchestrate keeps its files on the node;
    ``container`` what its ranks run in, None = nothing. ``pod``: the one that Kubernetes makes in
    its place, None = the machine itself.
    """

    name: str
    role: Role = Role.WORKER
    transport: TransportKind = TransportKind.ASYNCSSH
    ssh: SshEndpoint
    gpus: GpuSpec = GpuSpec()
    python: PythonSpec = PythonSpec()
    workdir: str = "~/.orchestrate"
    env: Mapping[str, Text] = field(default_factory=dict)
    price_per_hour: float | None = None
    groups: tuple[str, ...] = ()
    container: ContainerSpec | None = None
    pod: PodPlace | None = None


@wire("Cluster")
@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A validated inventory. ``nodes`` keeps the file's order, which is also the rank order."""

    name: str
    source: str
    summary: str = ""
    nodes: tuple[NodeSpec, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    expectations: tuple[Expectation, ...] = ()
    currency: str = "USD"
    min_nodes: int | None = None

    def node(self, name: str) -> NodeSpec:
        """The node called ``name``. Raises ``KeyError``."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    @property
    def workers(self) -> tuple[NodeSpec, ...]:
        """The nodes that may run ranks."""
        return tuple(node for node in self.nodes if node.role is Role.WORKER)
