"""GPUs as the driver's library tells of them, else as nvidia-smi lists them.

No driver, no GPUs; a driver that fails is told in a note. Both are asked in processes of their own,
because a wedged driver does not even let go of a process that was killed.
"""

from __future__ import annotations

import os
import sys

from orchestrator.node_agent.base.sysfs import list_names, name_and_user, parse_int, read_text
from orchestrator.node_agent.facts.gpu_query import (
    NVML,
    TIMEOUT_S,
    find_on_path,
    find_program,
    run_tool,
)
from orchestrator.node_agent.facts.pci import Device, all_paths, find_redirection, path_kind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

SIGNS = ("/proc/driver/nvidia/version", "/dev/nvidiactl")
PEERMEM = ("nvidia_peermem", "nv_peer_mem")
SWITCH_CLASS, NVIDIA = "0x068000", "0x10de"
GPU_CLASSES = ("0x030000", "0x030200")  # with and without a screen


def find_gpus(notes: list[str], hcas: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """``gpus``, ``driver``, and what belongs to GPUs only; without a driver just the first two."""
    program = find_program()
    if program is None and not any(map(os.path.exists, SIGNS)):
        return {"gpus": [], "driver": "", "gpus_on_bus": count_on_bus()}
    found = _ask_nvml(notes)
    source = "nvml"
    if found is None and program is not None:
        from orchestrator.node_agent.facts.smi import ask_smi

        source, found = "nvidia-smi", ask_smi(program, notes)
    if found is None:
        return {"gpus": [], "driver": "", "gpus_on_bus": count_on_bus()}
    found["lost_gpus"] = found.pop("lost", [])
    notes += found["lost_gpus"]
    if not found["gpus"]:
        return {name: found[name] for name in ("gpus", "driver", "lost_gpus")}
    if program is not None and any(gpu.get("mig") for gpu in found["gpus"]):
        from orchestrator.node_agent.facts.smi import add_instances

        add_instances(found["gpus"], program, notes)
    found.update(add_topology(found["gpus"], hcas or [], notes))
    return {**found, "gpu_source": source, "gpus_on_bus": count_on_bus()}


def add_topology(
    gpus: list[dict[str, Any]],
    hcas: list[dict[str, Any]],
    notes: list[str],
    sys_root: str = "/sys",
    proc: str = "/proc",
) -> dict[str, Any]:
    """Completes ``gpus`` with what the kernel knows of them, and tells how they are connected."""
    devices = {f"gpu{gpu['index']}": Device(gpu["pci"], sys_root) for gpu in gpus}
    for gpu, device in zip(gpus, devices.values()):
        gpu["numa_node"], gpu["cpus"] = device.numa_node, device.cpus
        processes = gpu.pop("processes", None)
        gpu["processes"] = [
            {**process, **name_and_user(os.path.join(proc, str(process["pid"])))}
            for process in processes or []
        ]
        gpu["users"] = sorted(process["pid"] for process in processes or [])
        gpu["users_known"] = processes is not None
        if processes is None:
            notes.append(f"GPU {gpu['index']}: the driver does not report which processes use it")
    return {
        "paths": list(_paths(gpus, devices, hcas, sys_root)),
        "p2p": find_redirection(list(devices.values()), notes, sys_root),
        "peermem": _peermem(sys_root),
        "dmabuf": _dmabuf(proc),
        "fabric_manager": _fabric_manager(sys_root, proc),
    }


def _paths(
    gpus: list[dict[str, Any]],
    devices: dict[str, Device],
    hcas: list[dict[str, Any]],
    sys_root: str,
) -> Iterator[dict[str, str]]:
    """Between GPUs the links if there are any, else PCIe; and from GPUs to adapters."""
    linked = {frozenset((a, b)): kind for a, b, kind in _links(gpus)}
    for path in all_paths(devices):
        path["kind"] = linked.pop(frozenset((path["a"], path["b"])), path["kind"])
        yield path
    for pair, kind in linked.items():  # the kernel does not say where these are
        a, b = sorted(pair)
        yield {"a": a, "b": b, "kind": kind}
    adapters = {hca["name"]: Device(hca["pci"], sys_root) for hca in hcas if hca["pci"]}
    for name, device in devices.items():
        for adapter, other in adapters.items():
            kind = path_kind(device, other)
            if kind:
                yield {"a": name, "b": adapter, "kind": kind}


def _links(gpus: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """(GPU, GPU, NV and the number of links), through switches or directly."""
    for at, first in enumerate(gpus):
        for second in gpus[at + 1 :]:
            mine, others = first["nvlink"].get("peers", {}), second["nvlink"].get("peers", {})
            count = mine.get(second["pci"], 0) or min(
                mine.get("switch", 0), others.get("switch", 0)
            )
            if count:
                yield f"gpu{first['index']}", f"gpu{second['index']}", f"NV{count}"


def _peermem(sys_root: str) -> str | None:
    """The module that lets adapters reach GPU memory; "" if none is loaded."""
    loaded = list_names(os.path.join(sys_root, "module"))
    if not loaded:
        return None
    return next((name for name in PEERMEM if name in loaded), "")


def _dmabuf(proc: str) -> bool | None:
    """Adapters reach GPU memory without a module of NVIDIA's from Linux 5.12 on, with the open
    kernel modules.
    """
    driver = read_text(os.path.join(proc, "driver/nvidia/version"), 1024)
    release = read_text(os.path.join(proc, "sys/kernel/osrelease")).split(".")
    numbers = [parse_int(part) for part in release[:2]]
    if not driver or len(numbers) < 2 or None in numbers:
        return None
    return numbers >= [5, 12] and "Open Kernel Module" in driver


def _fabric_manager(sys_root: str, proc: str) -> dict[str, Any]:
    pids = [pid for pid in list_names(proc) if pid.isdigit()]
    comms = (read_text(os.path.join(proc, pid, "comm"), 64) for pid in pids)
    running = any(comm.startswith("nv-fabricmanage") for comm in comms)  # 15 characters of it
    return {"switches": _count_switches(sys_root), "running": running, "version": _fm_version()}


def _count_switches(sys_root: str) -> int:
    return len(_of_nvidia(sys_root, (SWITCH_CLASS,)) or ())


def count_on_bus(sys_root: str = "/sys") -> int | None:
    """GPUs on the PCI bus, driver or not; None where the bus cannot be read."""
    found = _of_nvidia(sys_root, GPU_CLASSES)
    return None if found is None else len(found)


def _of_nvidia(sys_root: str, classes: tuple[str, ...]) -> list[str] | None:
    """Addresses of NVIDIA's devices of some classes."""
    devices = os.path.join(sys_root, "bus/pci/devices")
    if not os.path.isdir(devices):
        return None
    return [
        name
        for name in list_names(devices)
        if read_text(os.path.join(devices, name, "class")) in classes
        and read_text(os.path.join(devices, name, "vendor")) == NVIDIA
    ]


def _fm_version() -> str:
    program = find_on_path("nv-fabricmanager")
    text = run_tool([program, "--version"], [], 5.0) if program else ""
    return text.rpartition(":")[2].strip()[:64] if ":" in text else ""


def _ask_nvml(notes: list[str]) -> dict[str, Any] | None:
    """What ``nvml.py`` answers; None with a note if it has no answer."""
    import json

    text = run_tool([sys.executable, "-I", "-S", NVML], notes, TIMEOUT_S)
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        found = {"error": "its reply is invalid"}
    if "gpus" in found:
        return dict(found)
    if "error" in found:
        notes.append(f"NVML: {found['error']}")
    return None
