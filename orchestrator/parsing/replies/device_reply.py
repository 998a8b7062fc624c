"""What a node says of its GPUs and adapters, made into facts. See :mod:`.facts`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints

from orchestrator.core.model.facts import (
    Ecc,
    FabricManager,
    Gid,
    Gpu,
    GpuProcess,
    Hca,
    NvLink,
    P2p,
    Path,
    PcieLink,
    Rows,
    Xid,
)
from orchestrator.parsing.replies.answers import (
    STRICT,
    Address,
    Bytes,
    Count,
    CpuList,
    Name,
    PciAddress,
    Pid,
    Signed,
    Small,
    Text,
    Watts,
)


class _Answer(BaseModel):
    model_config = STRICT


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


class _Devices(_Answer):
    gpus: Annotated[list[_Gpu], Field(max_length=256)] = []
    hcas: Annotated[list[_Hca], Field(max_length=256)] = []
    paths: Annotated[list[_Path], Field(max_length=65536)] = []
    p2p: _P2p = _P2p()
    fabric_manager: _FabricManager | None = None
    xids: Annotated[list[_Xid], Field(max_length=256)] = []


def parse_devices(told: Mapping[str, Any], *, xids_known: bool) -> dict[str, Any]:
    """Fields of the core's facts. Raises pydantic's ``ValidationError``."""
    found = _Devices.model_validate(dict(told))
    manager = found.fabric_manager
    xids = tuple(Xid(**xid.model_dump()) for xid in found.xids)
    return {
        "gpus": tuple(_gpu(gpu) for gpu in found.gpus),
        "hcas": tuple(_hca(hca) for hca in found.hcas),
        "paths": tuple(Path(**path.model_dump()) for path in found.paths),
        "p2p": P2p(iommu=found.p2p.iommu, redirecting=_tuple(found.p2p.redirecting)),
        "fabric_manager": None if manager is None else FabricManager(**manager.model_dump()),
        "xids": xids if xids_known else None,
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
