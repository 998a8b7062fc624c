"""What a node really has, as the agent's probe reported it (validated at the boundary)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU as the driver shows it. ``users`` are pids that hold a context on it."""

    index: int
    name: str
    uuid: str = ""
    memory_bytes: int = 0
    memory_used_bytes: int = 0
    users: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A network interface. ``speed_mbit`` 0 = unknown; ``addresses`` without prefix lengths."""

    name: str
    up: bool
    loopback: bool = False
    addresses: tuple[str, ...] = ()
    speed_mbit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hca:
    """One port of an InfiniBand or RoCE adapter. ``rate_gbit`` is the active link rate."""

    name: str
    port: int
    state: str
    link_layer: str
    rate_gbit: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmNode:
    """The node as Slurm knows it. ``cpus`` and ``gpus``: what Slurm can give there, as it counts;
    0 = unknown, or not managed by Slurm.
    """

    name: str
    cpus: int = 0
    gpus: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One probe's answer. ``boot_id`` changes at every boot; ``host_id`` tells two inventory names
    that are one machine (same boot, same network namespace). ``clock_offset_s`` is the node's wall
    clock minus the coordinator's, good to half the round trip. ``notes`` say what
    could not be found out. ``assumed`` marks facts that were
    taken from the inventory because the node could not be asked.
    """

    node: str
    hostname: str
    boot_id: str = ""
    host_id: str = ""
    cpus: int = 1
    memory_bytes: int = 0
    disk_free_bytes: int = 0
    memlock_bytes: int | None = None
    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    interfaces: tuple[Interface, ...] = ()
    hcas: tuple[Hca, ...] = ()
    route_address: str = ""
    agent_python: str = ""
    clock_offset_s: float = 0.0
    modules: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    assumed: bool = False
