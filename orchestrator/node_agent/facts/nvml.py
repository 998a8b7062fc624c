"""What the driver's own library says of the GPUs, as one JSON object on standard output.

A program of its own (``python3 -I -S nvml.py``): a driver that is wedged holds up this process, not
the agent. What a card or driver does not know is null. Numbers are those of nvml.h.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from ctypes import byref

sys.path.insert(0, os.path.abspath(__file__).rsplit(os.sep, 4)[0])

from orchestrator.node_agent.base.nvml_library import (
    Fabric,
    GpuProcessInfo,
    Margin,
    Memory,
    Nvml,
    OldMemory,
    Pci,
    open_library,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_GPUS = 256
MAX_LINKS = 36
MAX_PROCESSES = 512
SM, TEMPERATURE_OF_GPU = 1, 0
SLOWDOWN_THRESHOLD, MEMORY_THRESHOLD = 1, 2  # temperatures at which clocks fall
CORRECTED, UNCORRECTED, VOLATILE, AGGREGATE = 0, 1, 0, 1
MEMORY_TEMPERATURE = 82  # a field value, in degrees Celsius
LINK_COUNT, LINK_SPEED = 91, 164  # field values; the speed is that of a link, in MB/s
LINK_ERRORS = (38, 45, 52, 59)  # CRC of flits and of data, replays, recoveries
NOWHERE = 0xFFFFFFFF  # the domain of a link's other end that has no address
SWITCH = 2  # what is at the other end of a link
THROTTLE = {
    0x1: "idle",
    0x2: "clocks_setting",
    0x4: "sw_power_cap",
    0x8: "hw_slowdown",
    0x10: "sync_boost",
    0x20: "sw_thermal",
    0x40: "hw_thermal",
    0x80: "hw_power_brake",
    0x100: "display_setting",
}
COMPUTE_MODES = {0: "default", 1: "exclusive_thread", 2: "prohibited", 3: "exclusive_process"}
FABRIC_STATES = {0: "not_supported", 1: "not_started", 2: "in_progress", 3: "completed"}


def describe_gpus(nvml: Nvml) -> dict[str, Any]:
    """``{"driver", "cuda", "gpus": [...]}`` of an initialised library."""
    cuda = nvml.number("nvmlSystemGetCudaDriverVersion_v2", kind=ctypes.c_int) or 0
    count = min(nvml.number("nvmlDeviceGetCount_v2") or 0, MAX_GPUS)
    gpus, lost = [], []
    for index in range(count):
        device, failed = nvml.device(index)
        if failed:
            lost.append(f"GPU {index}: the driver gives no access (NVML error {failed})")
        else:
            gpus.append(_gpu(nvml, index, device))
    return {
        "driver": nvml.text("nvmlSystemGetDriverVersion"),
        "cuda": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else "",
        "gpus": gpus,
        "lost": lost,
    }


def _gpu(nvml: Nvml, index: int, device: Any) -> dict[str, Any]:
    total, used = read_memory(nvml, device)
    return {
        "index": index,
        "name": nvml.text("nvmlDeviceGetName", device),
        "uuid": nvml.text("nvmlDeviceGetUUID", device),
        "pci": _address(nvml, "nvmlDeviceGetPciInfo_v3", device),
        "memory_bytes": total,
        "memory_used_bytes": used,
        "processes": _processes(nvml, device),
        **_condition(nvml, device),
        **_heat(nvml, device),
        **_firmware(nvml, device),
        **_modes(nvml, device),
        "pcie": _pcie(nvml, device),
        "ecc": _ecc(nvml, device),
        "rows": _rows(nvml, device),
        "nvlink": _nvlink(nvml, device),
    }


def read_memory(nvml: Nvml, device: Any) -> tuple[int, int]:
    """(bytes of the GPU, bytes in use); zeros where neither is known."""
    memory = Memory(version=ctypes.sizeof(Memory) | 2 << 24)
    if not nvml.call("nvmlDeviceGetMemoryInfo_v2", device, byref(memory)):
        return int(memory.total), int(memory.used)
    old = OldMemory()
    nvml.call("nvmlDeviceGetMemoryInfo", device, byref(old))
    return int(old.total), int(old.used)


def _address(nvml: Nvml, name: str, *arguments: Any) -> str:
    """As sysfs writes it: a domain of four digits, lower case."""
    pci = Pci()
    if nvml.call(name, *arguments, byref(pci)) or pci.domain == NOWHERE:
        return ""
    return f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.0"


def _processes(nvml: Nvml, device: Any) -> list[dict[str, int]] | None:
    count = ctypes.c_uint(MAX_PROCESSES)
    found = (GpuProcessInfo * MAX_PROCESSES)()
    for name in (
        "nvmlDeviceGetComputeRunningProcesses_v3",
        "nvmlDeviceGetComputeRunningProcesses_v2",
    ):
        if not nvml.call(name, device, byref(count), found):
            # A driver that may not tell the memory says all ones.
            known = [(p.pid, p.memory if p.memory < 1 << 60 else 0) for p in found[: count.value]]
            return [{"pid": int(pid), "memory_bytes": int(memory)} for pid, memory in known]
    return None


def _condition(nvml: Nvml, device: Any) -> dict[str, Any]:
    return {
        "power_w": _watts(nvml.number("nvmlDeviceGetPowerUsage", device)),
        "power_limit_w": _watts(nvml.number("nvmlDeviceGetPowerManagementLimit", device)),
        "power_default_w": _watts(nvml.number("nvmlDeviceGetPowerManagementDefaultLimit", device)),
        "sm_clock_mhz": nvml.number("nvmlDeviceGetClockInfo", device, ctypes.c_uint(SM)),
        "sm_clock_max_mhz": nvml.number("nvmlDeviceGetMaxClockInfo", device, ctypes.c_uint(SM)),
        "throttle": _throttle(nvml, device),
    }


def _heat(nvml: Nvml, device: Any) -> dict[str, int | None]:
    temperature = nvml.number("nvmlDeviceGetTemperature", device, ctypes.c_uint(TEMPERATURE_OF_GPU))
    return {
        "temperature_c": temperature,
        "margin_c": _margin(nvml, device, temperature),
        "memory_temperature_c": nvml.field(device, MEMORY_TEMPERATURE) or None,
        "memory_temperature_max_c": _threshold(nvml, device, MEMORY_THRESHOLD),
    }


def _margin(nvml: Nvml, device: Any, temperature: int | None) -> int | None:
    """As the driver says it; older ones only know the temperature at which clocks fall."""
    margin = Margin(version=ctypes.sizeof(Margin) | 1 << 24)
    if not nvml.call("nvmlDeviceGetMarginTemperature", device, byref(margin)):
        return int(margin.margin)
    threshold = _threshold(nvml, device, SLOWDOWN_THRESHOLD)
    return None if threshold is None or temperature is None else threshold - temperature


def _threshold(nvml: Nvml, device: Any, which: int) -> int | None:
    return nvml.number("nvmlDeviceGetTemperatureThreshold", device, ctypes.c_uint(which))


def _firmware(nvml: Nvml, device: Any) -> dict[str, str]:
    return {
        "vbios": nvml.text("nvmlDeviceGetVbiosVersion", device),
        "inforom": nvml.text("nvmlDeviceGetInforomImageVersion", device),
        "gsp": _gsp(nvml, device),
    }


def _gsp(nvml: Nvml, device: Any) -> str:
    """The only text for which the library is not given the size of the buffer: it takes 64."""
    buffer = ctypes.create_string_buffer(256)
    failed = nvml.call("nvmlDeviceGetGspFirmwareVersion", device, buffer)
    return "" if failed else buffer.value.decode(errors="replace")


def _watts(milliwatts: int | None) -> float | None:
    return None if milliwatts is None else milliwatts / 1000


def _throttle(nvml: Nvml, device: Any) -> list[str] | None:
    mask = throttle_mask(nvml, device)
    return None if mask is None else throttle_names(mask)


def throttle_mask(nvml: Nvml, device: Any) -> int | None:
    """Bits of :data:`THROTTLE` that hold now."""
    for name in (
        "nvmlDeviceGetCurrentClocksEventReasons",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
    ):
        mask = nvml.number(name, device, kind=ctypes.c_ulonglong)
        if mask is not None:
            return mask
    return None


def throttle_names(mask: int) -> list[str]:
    """Why clocks are below what they might be."""
    return [name for bit, name in THROTTLE.items() if mask & bit]


def _modes(nvml: Nvml, device: Any) -> dict[str, Any]:
    persistence = nvml.number("nvmlDeviceGetPersistenceMode", device)
    compute = nvml.number("nvmlDeviceGetComputeMode", device)
    mig = nvml.numbers("nvmlDeviceGetMigMode", device, 2)
    fabric = Fabric(version=ctypes.sizeof(Fabric) | 2 << 24)
    failed = nvml.call("nvmlDeviceGetGpuFabricInfoV", device, byref(fabric))
    return {
        "persistence": None if persistence is None else bool(persistence),
        "compute_mode": COMPUTE_MODES.get(-1 if compute is None else compute, ""),
        "mig": None if mig is None else bool(mig[0]),
        "fabric": "" if failed else FABRIC_STATES.get(fabric.state, ""),
    }


def _pcie(nvml: Nvml, device: Any) -> dict[str, int | None]:
    return {
        "gen": nvml.number("nvmlDeviceGetCurrPcieLinkGeneration", device),
        "gen_max": nvml.number("nvmlDeviceGetMaxPcieLinkGeneration", device),
        "width": nvml.number("nvmlDeviceGetCurrPcieLinkWidth", device),
        "width_max": nvml.number("nvmlDeviceGetMaxPcieLinkWidth", device),
    }


def _ecc(nvml: Nvml, device: Any) -> dict[str, Any]:
    mode = nvml.numbers("nvmlDeviceGetEccMode", device, 2)

    def errors(kind: int, counter: int) -> int | None:
        return nvml.number(
            "nvmlDeviceGetTotalEccErrors",
            device,
            ctypes.c_uint(kind),
            ctypes.c_uint(counter),
            kind=ctypes.c_ulonglong,
        )

    return {
        "enabled": None if mode is None else bool(mode[0]),
        "corrected": errors(CORRECTED, VOLATILE),
        "uncorrected": errors(UNCORRECTED, VOLATILE),
        "uncorrected_ever": errors(UNCORRECTED, AGGREGATE),
    }


def _rows(nvml: Nvml, device: Any) -> dict[str, Any]:
    rows = nvml.numbers("nvmlDeviceGetRemappedRows", device, 4)
    if rows is None:
        return {}
    corrected, uncorrected, pending, failed = rows
    return {
        "corrected": corrected,
        "uncorrected": uncorrected,
        "pending": bool(pending),
        "failed": bool(failed),
    }


def _nvlink(nvml: Nvml, device: Any) -> dict[str, Any]:
    """Links of the GPU, how many are active, and to whom: a PCI address, or ``switch``."""
    states = [
        nvml.number("nvmlDeviceGetNvLinkState", device, ctypes.c_uint(link))
        for link in range(MAX_LINKS)
    ]
    active = [link for link, state in enumerate(states) if state == 1]
    counted = nvml.field(device, LINK_COUNT)
    known = sum(state is not None for state in states)
    peers: dict[str, int] = {}
    for link in active:
        peer = _peer(nvml, device, link)
        if peer:
            peers[peer] = peers.get(peer, 0) + 1
    errors = [found for found in (nvml.field(device, n) for n in LINK_ERRORS) if found is not None]
    return {
        "total": known if counted is None else counted,
        "active": len(active),
        "mbyte_s": (nvml.field(device, LINK_SPEED, active[0]) if active else 0) or None,
        "errors": sum(errors) if errors else None,
        "peers": peers,
    }


def _peer(nvml: Nvml, device: Any, link: int) -> str:
    kind = nvml.number("nvmlDeviceGetNvLinkRemoteDeviceType", device, ctypes.c_uint(link))
    if kind == SWITCH:
        return "switch"
    return _address(nvml, "nvmlDeviceGetNvLinkRemotePciInfo_v2", device, ctypes.c_uint(link))


def main() -> None:
    """Prints ``{"error": ...}`` where there is no library or it does not start."""
    nvml, why_not = open_library()
    print(json.dumps({"error": why_not} if nvml is None else describe_gpus(nvml)))


if __name__ == "__main__":
    main()
