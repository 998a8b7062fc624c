"""A node's answer to ``probe`` made into facts. The node is not trusted: types, sizes and text are
checked, and nothing of what it says is believed to be short, printable or sane.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic import ValidationError as Invalid

from orchestrator.core.errors import PreflightError
from orchestrator.core.facts import (
    Disk,
    Ecc,
    FabricManager,
    Facts,
    Gid,
    Gpu,
    GpuProcess,
    Hca,
    Interface,
    NvLink,
    P2p,
    Path,
    PcieLink,
    Rows,
    Xid,
)

MAX_BYTES = 1 << 60
MAX_TEXT = 256
MAX_NOTE = 1000


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)


def _address(text: str) -> str:
    return str(ipaddress.ip_address(text.partition("%")[0]))


Text = Annotated[str, StringConstraints(max_length=MAX_TEXT), AfterValidator(_printable)]
Note = Annotated[str, StringConstraints(max_length=4096), AfterValidator(_printable)]
Bytes = Annotated[int, Field(ge=0, le=MAX_BYTES)]
Address = Annotated[str, StringConstraints(max_length=64), AfterValidator(_address)]
Pid = Annotated[int, Field(ge=1, le=1 << 31)]
Count = Annotated[int, Field(ge=0, le=1 << 64)]
Small = Annotated[int, Field(ge=0, le=1_000_000)]
Signed = Annotated[int, Field(ge=-1000, le=1_000_000)]
Watts = Annotated[float, Field(ge=0, le=100_000)]
CpuList = Annotated[str, StringConstraints(max_length=1024, pattern=r"^[0-9,-]*$")]
PciAddress = Annotated[str, StringConstraints(max_length=24, pattern=r"^[0-9A-Fa-f:.]*$")]
Variables = Annotated[dict[Text, Text], Field(max_length=128)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,63}$")]


class _Answer(BaseModel):
    """No conversion between types. An agent of another version may say more: that is ignored."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class _GpuProcess(_Answer):
    pid: Pid
    name: Text = ""
    user: Text = ""
    memory_bytes: Bytes = 0


class _Pcie(_Answer):
    gen: Small | None = None
    gen_max: Small | None = None
    width: Small | None = None
    width_max: Small | None = None


class _Ecc(_Answer):
    enabled: bool | None = None
    corrected: Count | None = None
    uncorrected: Count | None = None
    uncorrected_ever: Count | None = None


class _Rows(_Answer):
    corrected: Count | None = None
    uncorrected: Count | None = None
    pending: bool | None = None
    failed: bool | None = None


class _NvLink(_Answer):
    total: Small | None = None
    active: Small | None = None
    mbyte_s: Small | None = None
    errors: Count | None = None
    peers: Annotated[dict[Text, Small], Field(max_length=64)] = {}


class _Gpu(_Answer):
    index: Annotated[int, Field(ge=0, le=1023)]
    name: Text
    uuid: Text = ""
    memory_bytes: Bytes = 0
    memory_used_bytes: Bytes = 0
    users: Annotated[list[Pid], Field(max_length=4096)] = []
    processes: Annotated[list[_GpuProcess], Field(max_length=4096)] = []
    pci: PciAddress = ""
    numa_node: Small | None = None
    cpus: CpuList = ""
    power_w: Watts | None = None
    power_limit_w: Watts | None = None
    power_default_w: Watts | None = None
    temperature_c: Signed | None = None
    sm_clock_mhz: Small | None = None
    sm_clock_max_mhz: Small | None = None
    throttle: Annotated[list[Text], Field(max_length=64)] | None = None
    persistence: bool | None = None
    compute_mode: Text = ""
    mig: bool | None = None
    fabric: Text = ""
    pcie: _Pcie = _Pcie()
    ecc: _Ecc = _Ecc()
    rows: _Rows = _Rows()
    nvlink: _NvLink = _NvLink()


class _Interface(_Answer):
    name: Annotated[str, StringConstraints(min_length=1, max_length=64), AfterValidator(_printable)]
    up: bool
    loopback: bool = False
    addresses: Annotated[list[Address], Field(max_length=256)] = []
    speed_mbit: Annotated[int, Field(ge=0, le=100_000_000)] = 0
    mtu: Annotated[int, Field(ge=0, le=1 << 32)] = 0
    virtual: bool | None = None


class _Gid(_Answer):
    index: Small
    address: Address
    kind: Text = ""
    netdev: Text = ""


class _Hca(_Answer):
    name: Name
    port: Annotated[int, Field(ge=0, le=255)]
    state: Text
    link_layer: Text
    rate_gbit: Annotated[float, Field(ge=0, le=100_000)] = 0.0
    physical_state: Text = ""
    firmware: Text = ""
    board: Text = ""
    netdev: Text = ""
    pci: PciAddress = ""
    numa_node: Small | None = None
    gids: Annotated[list[_Gid], Field(max_length=256)] = []
    errors: Annotated[dict[Text, Count], Field(max_length=64)] = {}


class _Path(_Answer):
    a: Name
    b: Name
    kind: Annotated[str, StringConstraints(pattern=r"^(NV[0-9]{1,3}|PIX|PXB|PHB|NODE|SYS)$")]


class _P2p(_Answer):
    iommu: Text | None = None
    redirecting: Annotated[list[PciAddress], Field(max_length=512)] | None = None


class _Xid(_Answer):
    code: Small
    pci: PciAddress
    count: Count
    last: Text = ""
    switch: bool = False


class _FabricManager(_Answer):
    switches: Small = 0
    running: bool | None = None
    version: Text = ""


class _Disk(_Answer):
    path: Note
    kind: Text = ""
    total_bytes: Bytes = 0
    free_bytes: Bytes = 0


class _Facts(_Answer):
    hostname: Text
    boot_id: Text = ""
    host_id: Text = ""
    cpus: Annotated[int, Field(ge=1, le=65536)] = 1
    memory_bytes: Bytes = 0
    disk_free_bytes: Bytes = 0
    memlock_bytes: Annotated[int, Field(ge=0, lt=1 << 64)] | None = None
    gpus: Annotated[list[_Gpu], Field(max_length=256)] = []
    driver: Text = ""
    interfaces: Annotated[list[_Interface], Field(max_length=1024)] = []
    hcas: Annotated[list[_Hca], Field(max_length=256)] = []
    route_address: Address
    agent_python: Text = ""
    modules: Annotated[dict[Text, Text], Field(max_length=256)] = {}
    wall_clock: Annotated[float, Field(ge=0, le=1e11)]
    gpu_source: Text = ""
    cuda: Text = ""
    interpreter: Note = ""
    paths: Annotated[list[_Path], Field(max_length=65536)] = []
    p2p: _P2p = _P2p()
    peermem: Text | None = None
    dmabuf: bool | None = None
    fabric_manager: _FabricManager | None = None
    xids: Annotated[list[_Xid], Field(max_length=256)] | None = None
    kernel: Text = ""
    system: Text = ""
    container: Text = ""
    virtual_machine: Text | None = None
    shm_bytes: Bytes | None = None
    hugepages_bytes: Bytes | None = None
    disks: Annotated[list[_Disk], Field(max_length=64)] = []
    numa: Annotated[list[CpuList], Field(max_length=1024)] = []
    nccl_conf: Variables = {}
    exports: Variables = {}


class _Reply(_Answer):
    facts: _Facts
    elapsed_s: Annotated[float, Field(ge=0, le=86400)] = 0.0
    notes: Annotated[list[Note], Field(max_length=64)] = []


def parse_facts(node: str, reply: Mapping[str, Any], *, asked: float, answered: float) -> Facts:
    """The facts in ``reply``. ``asked`` and ``answered`` are our wall clock around the request.

    Raises :class:`PreflightError` that names the first field that makes no sense.
    """
    try:
        answer = _Reply.model_validate(dict(reply))
    except Invalid as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise PreflightError(
            f"the node's answer to the probe makes no sense: {field[:80]}",
            id="OR-PROBE-001",
            where=node,
            why=_printable(first["msg"])[:200],
            remedy="report this with the node's distribution and python3 version",
        ) from None
    found = answer.facts
    # The node read its clock when the request arrived and then took its time.
    middle = (asked + answered - answer.elapsed_s) / 2
    return Facts(
        node=node,
        **{name: getattr(found, name) for name in _PLAIN},
        **_parts(found),
        clock_offset_s=found.wall_clock - middle,
        round_trip_s=max(0.0, answered - asked - answer.elapsed_s),
        notes=tuple(note[:MAX_NOTE] for note in answer.notes),
    )


# Fields that are the same here and in the core; the others are built part by part.
_BUILT = frozenset(
    "gpus interfaces hcas paths p2p fabric_manager xids disks numa wall_clock".split()
)
_PLAIN = tuple(name for name in _Facts.model_fields if name not in _BUILT)


def _parts(found: _Facts) -> dict[str, Any]:
    manager = found.fabric_manager
    xids = found.xids
    return {
        "gpus": tuple(_gpu(gpu) for gpu in found.gpus),
        "interfaces": tuple(_interface(interface) for interface in found.interfaces),
        "hcas": tuple(_hca(hca) for hca in found.hcas),
        "paths": tuple(Path(**path.model_dump()) for path in found.paths),
        "p2p": P2p(iommu=found.p2p.iommu, redirecting=_tuple(found.p2p.redirecting)),
        "fabric_manager": None if manager is None else FabricManager(**manager.model_dump()),
        "xids": None if xids is None else tuple(Xid(**xid.model_dump()) for xid in xids),
        "disks": tuple(Disk(**disk.model_dump()) for disk in found.disks),
        "numa": tuple(found.numa),
    }


def _tuple(items: list[str] | None) -> tuple[str, ...] | None:
    return None if items is None else tuple(items)


def _gpu(gpu: _Gpu) -> Gpu:
    parts = {"users", "processes", "throttle", "pcie", "ecc", "rows", "nvlink"}
    return Gpu(
        **gpu.model_dump(exclude=parts),
        users=tuple(sorted(set(gpu.users))),
        processes=tuple(GpuProcess(**process.model_dump()) for process in gpu.processes),
        throttle=_tuple(gpu.throttle),
        pcie=PcieLink(**gpu.pcie.model_dump()),
        ecc=Ecc(**gpu.ecc.model_dump()),
        rows=Rows(**gpu.rows.model_dump()),
        nvlink=NvLink(**gpu.nvlink.model_dump()),
    )


def _hca(hca: _Hca) -> Hca:
    gids = tuple(Gid(**gid.model_dump()) for gid in hca.gids)
    return Hca(**hca.model_dump(exclude={"gids"}), gids=gids)


def _interface(found: _Interface) -> Interface:
    return Interface(**found.model_dump(exclude={"addresses"}), addresses=tuple(found.addresses))
