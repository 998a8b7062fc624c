"""How devices are connected by PCIe, and what redirects traffic between them, from sysfs.

What lies below ``sys`` is read as the kernel documents it in ABI/testing/sysfs-bus-pci; a device's
real path names every bridge above it.
"""

from __future__ import annotations

import os

from orchestrator.node_agent.base.sysfs import link_target, read_number, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONFIG_BYTES = 4096
EXTENDED_AT, ACS_CAPABILITY = 0x100, 0x000D
REQUEST_REDIRECT, COMPLETION_REDIRECT = 0x04, 0x08
MAX_CAPABILITIES = 64
MAX_ABOVE = 16


class Device:
    """A function on the bus and the bridges above it, the nearest one last."""

    def __init__(self, address: str, sys: str = "/sys") -> None:
        self.address = address
        self.folder = os.path.join(sys, "bus/pci/devices", address)
        parts = os.path.realpath(self.folder).split(os.sep)
        roots = [at for at, part in enumerate(parts) if part.startswith("pci") and ":" in part]
        self.known = bool(roots) and parts[-1] == address
        self.root = parts[roots[-1]] if self.known else ""
        self.above = parts[roots[-1] + 1 : -1][-MAX_ABOVE:] if self.known else []
        node = read_number(os.path.join(self.folder, "numa_node"))
        self.numa_node = None if node is None or node < 0 else node
        self.cpus = read_text(os.path.join(self.folder, "local_cpulist"), 1024)


def path_kind(a: Device, b: Device) -> str:
    """In nvidia-smi's words; "" if either is unknown."""
    if not (a.known and b.known):
        return ""
    if a.root != b.root:
        nodes = {a.numa_node, b.numa_node}
        return "NODE" if len(nodes) == 1 and None not in nodes else "SYS"
    shared = 0
    while shared < min(len(a.above), len(b.above)) and a.above[shared] == b.above[shared]:
        shared += 1
    if not shared:
        return "PHB"
    # Below a switch's upstream port each device has one downstream port above it.
    longest = max(len(a.above), len(b.above)) - shared
    return "PIX" if longest <= 1 else "PXB"


def all_paths(devices: dict[str, Device]) -> list[dict[str, str]]:
    """Every pair of named devices whose connection is known."""
    named = list(devices.items())
    found = []
    for at, (a, first) in enumerate(named):
        for b, second in named[at + 1 :]:
            kind = path_kind(first, second)
            if kind:
                found.append({"a": a, "b": b, "kind": kind})
    return found


def find_redirection(gpus: list[Device], notes: list[str], sys: str = "/sys") -> dict[str, Any]:
    """What stands in the way of DMA from device to device: IOMMU translation, and ACS."""
    kinds = sorted({_iommu(gpu, sys) for gpu in gpus if gpu.known})
    # What passes the port of the root is past redirecting.
    bridges = sorted({bridge for gpu in gpus for bridge in gpu.above[1:]})
    redirecting: list[str] | None = []
    hidden = 0
    for bridge in bridges:
        control = acs_control(os.path.join(sys, "bus/pci/devices", bridge, "config"))
        if control is None:
            hidden += 1
        elif control & (REQUEST_REDIRECT | COMPLETION_REDIRECT) and redirecting is not None:
            redirecting.append(bridge)
    if hidden:
        notes.append(f"ACS of {hidden} PCIe bridges above the GPUs can only be read by root")
        redirecting = redirecting or None
    known = bool(kinds)
    return {"iommu": ",".join(kinds) if known else None, "redirecting": redirecting}


def _iommu(device: Device, sys: str) -> str:
    """The type of the device's IOMMU group; ``none`` without a group."""
    group = link_target(os.path.join(device.folder, "iommu_group"))
    if not group:
        return "none"
    return read_text(os.path.join(sys, "kernel/iommu_groups", group, "type")) or "unknown"


def acs_control(config: str) -> int | None:
    """The ACS control register of a bridge, 0 if it has none; None if it may not be read.

    Without root only the first 64 bytes of the configuration space can be read.
    """
    try:
        with open(config, "rb") as file:
            space = file.read(CONFIG_BYTES)
    except OSError:
        return None
    if len(space) <= EXTENDED_AT:
        # A whole legacy space has 256 bytes: such a bridge has no extended capabilities.
        return 0 if len(space) == EXTENDED_AT else None
    at = EXTENDED_AT
    for _ in range(MAX_CAPABILITIES):
        if not EXTENDED_AT <= at <= len(space) - 8:
            return 0
        head = int.from_bytes(space[at : at + 4], "little")
        if head & 0xFFFF == ACS_CAPABILITY:
            return int.from_bytes(space[at + 6 : at + 8], "little")
        at = head >> 20
    return 0
