"""What a node really has, as the agent's probe reported it (validated at the boundary).

Everywhere ``None`` and ``""`` mean that it could not be found out, which is never the same as
being well. Fields of later versions have defaults, so that older journals replay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core.base.wire_names import wire


@wire("GpuProcess")
@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A process that holds a context on a GPU."""

    pid: int
    name: str = ""
    user: str = ""
    memory_bytes: int = 0


@wire("PcieLink")
@dataclass(frozen=True, slots=True, kw_only=True)
class PcieLink:
    """What the link runs at, and the most that card and slot can do together."""

    gen: int | None = None
    gen_max: int | None = None
    width: int | None = None
    width_max: int | None = None


@wire("Ecc")
@dataclass(frozen=True, slots=True, kw_only=True)
class Ecc:
    """Memory errors since the driver was loaded, and uncorrected ones ever."""

    enabled: bool | None = None
    corrected: int | None = None
    uncorrected: int | None = None
    uncorrected_ever: int | None = None


@wire("Rows")
@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of memory that were replaced by spare ones. ``pending``: at the next reset."""

    corrected: int | None = None
    uncorrected: int | None = None
    pending: bool | None = None
    failed: bool | None = None


@wire("NvLink")
@dataclass(frozen=True, slots=True, kw_only=True)
class NvLink:
    """A GPU's links. ``peers``: how many lead to which PCI address, or to a ``switch``;
    ``mbyte_s`` is the signalling rate of one link.
    """

    total: int | None = None
    active: int | None = None
    mbyte_s: int | None = None
    errors: int | None = None
    peers: Mapping[str, int] = field(default_factory=dict)


@wire("Gpu")
@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU as the driver shows it. ``users`` are pids that hold a context on it.

    ``throttle`` names why its clocks are below what they might be; ``fabric`` is its state behind
    NVSwitches; ``cpus`` are those near to it, as the kernel lists them.
    """

    index: int
    name: str
    uuid: str = ""
    memory_bytes: int = 0
    memory_used_bytes: int = 0
    users: tuple[int, ...] = ()
    processes: tuple[GpuProcess, ...] = ()
    pci: str = ""
    numa_node: int | None = None
    cpus: str = ""
    power_w: float | None = None
    power_limit_w: float | None = None
    power_default_w: float | None = None
    temperature_c: int | None = None
    sm_clock_mhz: int | None = None
    sm_clock_max_mhz: int | None = None
    throttle: tuple[str, ...] | None = None
    persistence: bool | None = None
    compute_mode: str = ""
    mig: bool | None = None
    fabric: str = ""
    pcie: PcieLink = PcieLink()
    ecc: Ecc = Ecc()
    rows: Rows = Rows()
    nvlink: NvLink = NvLink()


@wire("Interface")
@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A network interface. ``speed_mbit`` 0 = unknown; ``addresses`` without prefix lengths;
    ``virtual``: no device stands behind it (a bridge, a tunnel, a container's end).
    """

    name: str
    up: bool
    loopback: bool = False
    addresses: tuple[str, ...] = ()
    speed_mbit: int = 0
    mtu: int = 0
    virtual: bool | None = None


@wire("Gid")
@dataclass(frozen=True, slots=True, kw_only=True)
class Gid:
    """An address of an adapter's port. ``kind`` is the kernel's word, such as ``RoCE v2``."""

    index: int
    address: str
    kind: str = ""
    netdev: str = ""


@wire("Hca")
@dataclass(frozen=True, slots=True, kw_only=True)
class Hca:
    """One port of an InfiniBand or RoCE adapter. ``rate_gbit`` is the active link rate.

    ``errors`` are the kernel's counters of what went wrong, since they were last reset.
    """

    name: str
    port: int
    state: str
    link_layer: str
    rate_gbit: float = 0.0
    physical_state: str = ""
    firmware: str = ""
    board: str = ""
    netdev: str = ""
    pci: str = ""
    numa_node: int | None = None
    gids: tuple[Gid, ...] = ()
    errors: Mapping[str, int] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        return self.state.upper().endswith("ACTIVE")

    @property
    def ethernet(self) -> bool:
        """Whether this is RoCE."""
        return self.link_layer.casefold() == "ethernet"


@wire("Path")
@dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """How two devices (``gpu0``, ``mlx5_0``) reach each other, in nvidia-smi's words: NV18 links,
    PIX one PCIe switch, PXB several, PHB the host bridge, NODE within a NUMA node, SYS across.
    """

    a: str
    b: str
    kind: str


@wire("P2p")
@dataclass(frozen=True, slots=True, kw_only=True)
class P2p:
    """What stands in the way of DMA between devices. ``iommu`` is the kind of translation that
    the GPUs are under (``identity`` = none); ``redirecting`` are PCIe bridges above them whose ACS
    sends what goes from device to device up through the root, None = could not be read.
    """

    iommu: str | None = None
    redirecting: tuple[str, ...] | None = None


@wire("Xid")
@dataclass(frozen=True, slots=True, kw_only=True)
class Xid:
    """A kind of error that the driver wrote to the kernel's log, how often, and when last."""

    code: int
    pci: str
    count: int
    last: str = ""
    switch: bool = False


@wire("FabricManager")
@dataclass(frozen=True, slots=True, kw_only=True)
class FabricManager:
    """NVSwitches of the node, and the service that must run where there are any."""

    switches: int = 0
    running: bool | None = None
    version: str = ""


@wire("Disk")
@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A file system that the node's work uses."""

    path: str
    kind: str = ""
    total_bytes: int = 0
    free_bytes: int = 0


@wire("SlurmNode")
@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmNode:
    """The node as Slurm knows it. ``cpus`` and ``gpus``: what Slurm can give there, as it counts;
    0 = unknown, or not managed by Slurm.
    """

    name: str
    cpus: int = 0
    gpus: int = 0


@wire("Facts")
@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One probe's answer. ``boot_id`` changes at every boot; ``host_id`` tells two inventory names
    that are one machine (same boot, same network namespace). ``clock_offset_s`` is the node's wall
    clock minus the coordinator's, good to half the round trip. ``notes`` say what
    could not be found out. ``assumed`` marks facts that were
    taken from the inventory because the node could not be asked.

    ``gpu_source`` tells who described the GPUs; ``peermem`` the kernel module that lets adapters
    reach GPU memory, "" = none is loaded; ``dmabuf`` whether kernel and driver can do without.
    ``nccl_conf`` is what NCCL reads from its configuration files, ``exports`` what the login sets
    of NCCL's and torch's variables, which ranks do not inherit. ``xids`` None = the kernel's log
    may not be read.
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
    gpu_source: str = ""
    cuda: str = ""
    interpreter: str = ""
    paths: tuple[Path, ...] = ()
    p2p: P2p = P2p()
    peermem: str | None = None
    dmabuf: bool | None = None
    fabric_manager: FabricManager | None = None
    xids: tuple[Xid, ...] | None = None
    kernel: str = ""
    system: str = ""
    container: str = ""
    virtual_machine: str | None = None
    shm_bytes: int | None = None
    hugepages_bytes: int | None = None
    disks: tuple[Disk, ...] = ()
    numa: tuple[str, ...] = ()
    nccl_conf: Mapping[str, str] = field(default_factory=dict)
    exports: Mapping[str, str] = field(default_factory=dict)
    round_trip_s: float | None = None

    def path(self, a: str, b: str) -> str:
        """How two devices reach each other; "" = unknown."""
        pair = {a, b}
        return next((path.kind for path in self.paths if {path.a, path.b} == pair), "")
