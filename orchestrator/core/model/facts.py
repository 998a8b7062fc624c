"""What a node really has, as the agent's probe reported it: each fact once, with its bounds.

Everywhere ``None`` and ``""`` mean that it could not be found out, which is never the same as
being well. Fields of later versions have defaults, so that older journals replay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from orchestrator.core.base.bounds import (
    Address,
    Between,
    Bytes,
    Chars,
    Count,
    CpuList,
    Items,
    Name,
    Note,
    Ours,
    PciAddress,
    Pid,
    Signed,
    Small,
    Text,
    Variables,
    Watts,
)
from orchestrator.core.base.wire_names import wire


@wire("GpuProcess")
@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A process that holds a context on a GPU."""

    pid: Pid
    name: Text = ""
    user: Text = ""
    memory_bytes: Bytes = 0


@wire("StuckProcess")
@dataclass(frozen=True, slots=True, kw_only=True)
class StuckProcess:
    """A process that cannot be ended: in uninterruptible sleep (``D``), or a zombie (``Z``) some
    of whose threads are still there. ``started``: clock ticks since the boot, which tells it from
    a later process of the same pid; ``sleeps``: how often it went to sleep, None = not known.
    """

    pid: Pid
    started: Count = 0
    sleeps: Count | None = None
    state: Annotated[str, Chars(1, "[DZ]")]
    name: Text = ""
    user: Text = ""


@wire("PcieLink")
@dataclass(frozen=True, slots=True, kw_only=True)
class PcieLink:
    """What the link runs at, and the most that card and slot can do together."""

    gen: Small | None = None
    gen_max: Small | None = None
    width: Small | None = None
    width_max: Small | None = None


@wire("Ecc")
@dataclass(frozen=True, slots=True, kw_only=True)
class Ecc:
    """Memory errors since the driver was loaded, and uncorrected ones ever."""

    enabled: bool | None = None
    corrected: Count | None = None
    uncorrected: Count | None = None
    uncorrected_ever: Count | None = None


@wire("Rows")
@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows of memory that were replaced by spare ones. ``pending``: at the next reset."""

    corrected: Count | None = None
    uncorrected: Count | None = None
    pending: bool | None = None
    failed: bool | None = None


@wire("NvLink")
@dataclass(frozen=True, slots=True, kw_only=True)
class NvLink:
    """A GPU's links. ``peers``: how many lead to which PCI address, or to a ``switch``;
    ``mbyte_s`` is the signalling rate of one link.
    """

    total: Small | None = None
    active: Small | None = None
    mbyte_s: Small | None = None
    errors: Count | None = None
    peers: Annotated[Mapping[Text, Small], Items(64)] = field(default_factory=dict)


@wire("MigInstance")
@dataclass(frozen=True, slots=True, kw_only=True)
class MigInstance:
    """A part of a GPU that MIG made. ``profile`` such as ``1g.10gb``."""

    profile: Text
    uuid: Text


@wire("Gpu")
@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU as the driver shows it. ``users`` are pids that hold a context on it.

    ``throttle`` names why its clocks are below what they might be; ``fabric`` is its state behind
    NVSwitches; ``cpus`` are those near to it, as the kernel lists them. ``users_known`` False: the
    driver does not say which processes use it. ``margin_c`` is how far it is from being slowed down
    by heat. ``vbios``, ``inforom`` and ``gsp`` are versions of its firmware.
    """

    index: Annotated[int, Between(0, 1023)]
    name: Text
    uuid: Text = ""
    memory_bytes: Bytes = 0
    memory_used_bytes: Bytes = 0
    users: Annotated[tuple[Pid, ...], Items(4096, distinct=True)] = ()
    processes: Annotated[tuple[GpuProcess, ...], Items(4096)] = ()
    pci: PciAddress = ""
    numa_node: Small | None = None
    cpus: CpuList = ""
    power_w: Watts | None = None
    power_limit_w: Watts | None = None
    power_default_w: Watts | None = None
    temperature_c: Signed | None = None
    sm_clock_mhz: Small | None = None
    sm_clock_max_mhz: Small | None = None
    throttle: Annotated[tuple[Text, ...] | None, Items(64)] = None
    persistence: bool | None = None
    compute_mode: Text = ""
    mig: bool | None = None
    mig_instances: Annotated[tuple[MigInstance, ...], Items(64)] = ()
    fabric: Text = ""
    pcie: PcieLink = PcieLink()
    ecc: Ecc = Ecc()
    rows: Rows = Rows()
    nvlink: NvLink = NvLink()
    users_known: bool | None = None
    margin_c: Signed | None = None
    memory_temperature_c: Signed | None = None
    memory_temperature_max_c: Signed | None = None
    vbios: Text = ""
    inforom: Text = ""
    gsp: Text = ""


@wire("Interface")
@dataclass(frozen=True, slots=True, kw_only=True)
class Interface:
    """A network interface. ``speed_mbit`` 0 = unknown; ``addresses`` without prefix lengths;
    ``virtual``: no device stands behind it (a bridge, a tunnel, a container's end).
    """

    name: Annotated[str, Chars(64, ".+")]
    up: bool
    loopback: bool = False
    addresses: Annotated[tuple[Address, ...], Items(256)] = ()
    speed_mbit: Annotated[int, Between(0, 100_000_000)] = 0
    mtu: Annotated[int, Between(0, 1 << 32)] = 0
    virtual: bool | None = None


@wire("Gid")
@dataclass(frozen=True, slots=True, kw_only=True)
class Gid:
    """An address of an adapter's port. ``kind`` is the kernel's word, such as ``RoCE v2``."""

    index: Small
    address: Address
    kind: Text = ""
    netdev: Text = ""


@wire("Hca")
@dataclass(frozen=True, slots=True, kw_only=True)
class Hca:
    """One port of an InfiniBand or RoCE adapter. ``rate_gbit`` is the active link rate.

    ``errors`` are the kernel's counters of what went wrong, since they were last reset. ``uverbs``
    and ``umad``: whether its device file may be opened, or is there; None = the kernel does not
    list what it should be.
    """

    name: Name
    port: Annotated[int, Between(0, 255)]
    state: Text
    link_layer: Text
    rate_gbit: Annotated[float, Between(0, 100_000)] = 0.0
    physical_state: Text = ""
    firmware: Text = ""
    board: Text = ""
    netdev: Text = ""
    pci: PciAddress = ""
    numa_node: Small | None = None
    gids: Annotated[tuple[Gid, ...], Items(256)] = ()
    errors: Annotated[Mapping[Text, Count], Items(64)] = field(default_factory=dict)
    uverbs: bool | None = None
    umad: bool | None = None

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

    a: Name
    b: Name
    kind: Annotated[str, Chars(5, "NV[0-9]{1,3}|PIX|PXB|PHB|NODE|SYS")]


@wire("P2p")
@dataclass(frozen=True, slots=True, kw_only=True)
class P2p:
    """What stands in the way of DMA between devices. ``iommu`` is the kind of translation that
    the GPUs are under (``identity`` = none); ``redirecting`` are PCIe bridges above them whose ACS
    sends what goes from device to device up through the root, None = could not be read.
    """

    iommu: Text | None = None
    redirecting: Annotated[tuple[PciAddress, ...] | None, Items(512)] = None


@wire("Xid")
@dataclass(frozen=True, slots=True, kw_only=True)
class Xid:
    """A kind of error that the driver wrote to the kernel's log, how often, and when last.
    ``in_a_day`` is the most in any 24 hours.
    """

    code: Small
    pci: PciAddress
    count: Count
    last: Text = ""
    switch: bool = False
    in_a_day: Count | None = None


@wire("FabricManager")
@dataclass(frozen=True, slots=True, kw_only=True)
class FabricManager:
    """NVSwitches of the node, and the service that must run where there are any."""

    switches: Small = 0
    running: bool | None = None
    version: Text = ""


@wire("Disk")
@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A file system that the node's work uses."""

    path: Note
    kind: Text = ""
    total_bytes: Bytes = 0
    free_bytes: Bytes = 0


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
    may not be read. ``lost_gpus``: a sentence for each that the driver knows, but cannot reach.
    ``gpus_on_bus``: how many the PCI bus has, driver or not; None = it cannot be read.
    ``writable``: the folder of our own files, also for root on a file system that is read-only.
    ``governors`` are those of the CPUs, () = the kernel sets no clocks, as in a virtual machine.
    ``zombies`` and ``stuck`` processes are None where processes cannot be seen. ``uptime_s`` is the
    node's clock since its boot, which two looks at the same counters are apart by.
    """

    node: Annotated[str, Ours()]
    hostname: Text
    boot_id: Text = ""
    host_id: Text = ""
    cpus: Annotated[int, Between(1, 65536)] = 1
    memory_bytes: Bytes = 0
    disk_free_bytes: Bytes = 0
    writable: bool | None = None
    memlock_bytes: Annotated[int | None, Between(0, (1 << 64) - 1)] = None
    gpus: Annotated[tuple[Gpu, ...], Items(256)] = ()
    driver: Text = ""
    interfaces: Annotated[tuple[Interface, ...], Items(1024)] = ()
    hcas: Annotated[tuple[Hca, ...], Items(256)] = ()
    route_address: Address = ""
    agent_python: Text = ""
    clock_offset_s: Annotated[float, Ours()] = 0.0
    modules: Annotated[Mapping[Text, Text], Items(256)] = field(default_factory=dict)
    notes: Annotated[tuple[str, ...], Ours()] = ()
    assumed: Annotated[bool, Ours()] = False
    gpu_source: Text = ""
    cuda: Text = ""
    interpreter: Note = ""
    paths: Annotated[tuple[Path, ...], Items(65536)] = ()
    p2p: P2p = P2p()
    peermem: Text | None = None
    dmabuf: bool | None = None
    fabric_manager: FabricManager | None = None
    xids: Annotated[tuple[Xid, ...] | None, Items(256)] = None
    kernel: Text = ""
    system: Text = ""
    container: Text = ""
    virtual_machine: Text | None = None
    shm_bytes: Bytes | None = None
    hugepages_bytes: Bytes | None = None
    disks: Annotated[tuple[Disk, ...], Items(64)] = ()
    numa: Annotated[tuple[CpuList, ...], Items(1024)] = ()
    nccl_conf: Variables = field(default_factory=dict)
    exports: Variables = field(default_factory=dict)
    round_trip_s: Annotated[float | None, Ours()] = None
    lost_gpus: Annotated[tuple[Note, ...], Items(64)] = ()
    gpus_on_bus: Annotated[int | None, Between(0, 1024)] = None
    governors: Annotated[tuple[Text, ...] | None, Items(16)] = None
    clock_source: Text = ""
    zombies: Count | None = None
    stuck: Annotated[tuple[StuckProcess, ...] | None, Items(64)] = None
    uptime_s: Annotated[float | None, Between(0, 1e11)] = None

    def path(self, a: str, b: str) -> str:
        """How two devices reach each other; "" = unknown."""
        pair = {a, b}
        return next((path.kind for path in self.paths if {path.a, path.b} == pair), "")
