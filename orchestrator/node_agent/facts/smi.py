"""GPUs as nvidia-smi lists them, where the driver's library cannot be asked."""

from __future__ import annotations

import math
import re

from orchestrator.node_agent.base.sysfs import parse_int
from orchestrator.node_agent.facts.gpu_query import (
    COMPUTE_USERS,
    MIB,
    TIMEOUT_S,
    parse_users,
    query_smi,
    run_tool,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

GPU_FIELDS = ("index", "name", "uuid", "memory.total", "memory.used", "driver_version")
# A driver that does not know one of these refuses the whole query: asked apart from the above.
DETAIL_FIELDS = (
    "index",
    "pci.bus_id",
    "power.draw",
    "power.limit",
    "power.default_limit",
    "temperature.gpu",
    "clocks.sm",
    "clocks.max.sm",
    "clocks_throttle_reasons.active",
    "pcie.link.gen.current",
    "pcie.link.gen.max",
    "pcie.link.width.current",
    "pcie.link.width.max",
    "ecc.mode.current",
    "ecc.errors.corrected.volatile.total",
    "ecc.errors.uncorrected.volatile.total",
    "ecc.errors.uncorrected.aggregate.total",
    "persistence_mode",
    "compute_mode",
    "mig.mode.current",
)
ROW_FIELDS = (
    "gpu_uuid",
    "remapped_rows.correctable",
    "remapped_rows.uncorrectable",
    "remapped_rows.pending",
    "remapped_rows.failure",
)
COMPUTE_MODES = {
    "Default": "default",
    "Prohibited": "prohibited",
    "Exclusive_Process": "exclusive_process",
    "Exclusive_Thread": "exclusive_thread",
}
# What nvidia-smi prints among the others of a GPU that fell off the bus.
LOST = re.compile(r"GPU is lost|Unable to determine the device handle", re.IGNORECASE)
MAX_LOST = 16
YES = {"Enabled": True, "Yes": True, "1": True, "Disabled": False, "No": False, "0": False}


def ask_smi(program: str, notes: list[str]) -> dict[str, Any] | None:
    """In the shape of ``nvml.describe``; None with a note when it fails."""
    listed = query_smi(program, "--query-gpu=" + ",".join(GPU_FIELDS), notes)
    if not listed:
        return None
    gpus, driver = parse_gpus(listed)
    users = parse_users(query_smi(program, COMPUTE_USERS, notes))
    details = parse_details(query_smi(program, "--query-gpu=" + ",".join(DETAIL_FIELDS), notes))
    rows = parse_rows(query_smi(program, "--query-remapped-rows=" + ",".join(ROW_FIELDS), []))
    links = parse_links(run_tool([program, "nvlink", "-s"], [], TIMEOUT_S))
    for gpu in gpus:
        pids = sorted(users.get(gpu["uuid"], ()))
        gpu["processes"] = [{"pid": pid, "memory_bytes": 0} for pid in pids]
        gpu.update(details.get(gpu["index"], {"pci": ""}))
        gpu["rows"] = rows.get(gpu["uuid"], {})
        gpu["nvlink"] = links.get(gpu["uuid"], {})
    lost = [line.strip() for line in listed.splitlines() if LOST.search(line)]
    if gpus:
        notes.append(
            "nvidia-smi was not asked for fabric state, NVLink peers, firmware and thermal margin"
        )
    return {"gpus": gpus, "driver": driver, "cuda": "", "lost": lost[:MAX_LOST]}


def add_instances(gpus: list[dict[str, Any]], program: str, notes: list[str]) -> None:
    """What MIG made of each GPU, which only ``nvidia-smi -L`` lists."""
    found = parse_instances(run_tool([program, "-L"], notes, TIMEOUT_S))
    for gpu in gpus:
        gpu["mig_instances"] = found.get(gpu["uuid"], [])


def parse_instances(text: str) -> dict[str, list[dict[str, str]]]:
    """GPU uuid -> its instances, from ``GPU 0: NAME (UUID: GPU-...)`` and, below it, lines such as
    ``MIG 1g.10gb     Device  0: (UUID: MIG-...)``.
    """
    found: dict[str, list[dict[str, str]]] = {}
    instances: list[dict[str, str]] = []
    for line in text.splitlines():
        words = line.split()
        uuid = line.rpartition("(UUID:")[2].strip().rstrip(")")
        if line.startswith("GPU ") and "(UUID:" in line:
            instances = found.setdefault(uuid, [])
        elif words[:1] == ["MIG"] and len(words) > 1 and "(UUID:" in line:
            instances.append({"profile": words[1], "uuid": uuid})
    return found


def parse_gpus(text: str) -> tuple[list[dict[str, Any]], str]:
    """(GPUs, driver version) from CSV without header and units; memory arrives in MiB.

    A line that does not start with an index, such as a warning, is left out. ``[N/A]`` counts as 0.
    """
    gpus: list[dict[str, Any]] = []
    driver = ""
    for cells in _lines(text, len(GPU_FIELDS)):
        index = parse_int(cells[0])
        if index is not None:
            gpus.append(
                {
                    "index": index,
                    "name": cells[1],
                    "uuid": cells[2],
                    "memory_bytes": (_number(cells[3]) or 0) * MIB,
                    "memory_used_bytes": (_number(cells[4]) or 0) * MIB,
                }
            )
            driver = cells[5]
    return gpus, driver


def parse_details(text: str) -> dict[int, dict[str, Any]]:
    """GPU index -> everything else that one query tells."""
    found = {}
    for cells in _lines(text, len(DETAIL_FIELDS)):
        index = parse_int(cells[0])
        if index is not None:
            found[index] = _detail(dict(zip(DETAIL_FIELDS, cells)))
    return found


def _detail(cell: dict[str, str]) -> dict[str, Any]:
    return {
        "pci": sysfs_address(cell["pci.bus_id"]),
        "power_w": _figure(cell["power.draw"]),
        "power_limit_w": _figure(cell["power.limit"]),
        "power_default_w": _figure(cell["power.default_limit"]),
        "temperature_c": _number(cell["temperature.gpu"]),
        "sm_clock_mhz": _number(cell["clocks.sm"]),
        "sm_clock_max_mhz": _number(cell["clocks.max.sm"]),
        "throttle": _throttle(cell["clocks_throttle_reasons.active"]),
        "persistence": YES.get(cell["persistence_mode"]),
        "compute_mode": COMPUTE_MODES.get(cell["compute_mode"], ""),
        "mig": YES.get(cell["mig.mode.current"]),
        "pcie": {
            "gen": _number(cell["pcie.link.gen.current"]),
            "gen_max": _number(cell["pcie.link.gen.max"]),
            "width": _number(cell["pcie.link.width.current"]),
            "width_max": _number(cell["pcie.link.width.max"]),
        },
        "ecc": {
            "enabled": YES.get(cell["ecc.mode.current"]),
            "corrected": _number(cell["ecc.errors.corrected.volatile.total"]),
            "uncorrected": _number(cell["ecc.errors.uncorrected.volatile.total"]),
            "uncorrected_ever": _number(cell["ecc.errors.uncorrected.aggregate.total"]),
        },
    }


def parse_rows(text: str) -> dict[str, dict[str, Any]]:
    """GPU uuid -> remapped rows."""
    return {
        cells[0]: {
            "corrected": _number(cells[1]),
            "uncorrected": _number(cells[2]),
            "pending": YES.get(cells[3]),
            "failed": YES.get(cells[4]),
        }
        for cells in _lines(text, len(ROW_FIELDS))
    }


def parse_links(text: str) -> dict[str, dict[str, Any]]:
    """GPU uuid -> links, from lines such as ``Link 0: 26.562 GB/s`` or ``Link 1: <inactive>``."""
    found: dict[str, dict[str, Any]] = {}
    links: dict[str, Any] = {}
    for line in text.splitlines():
        head, _, rest = line.strip().partition(":")
        if head.startswith("GPU ") and "(UUID:" in rest:
            links = {"total": 0, "active": 0, "mbyte_s": None}
            found[rest.partition("(UUID:")[2].strip().rstrip(")")] = links
        elif head.startswith("Link ") and links:
            links["total"] += 1
            number, unit, _ = rest.partition("GB/s")
            speed = _figure(number) if unit else None
            if speed is not None:
                links["active"] += 1
                links["mbyte_s"] = round(speed * 1000)
    return found


def sysfs_address(bus_id: str) -> str:
    """``00000000:1A:00.0`` as sysfs writes it."""
    domain, _, rest = bus_id.lower().partition(":")
    try:
        return f"{int(domain, 16):04x}:{rest}"
    except ValueError:
        return ""


def _throttle(text: str) -> list[str] | None:
    from orchestrator.node_agent.facts.nvml import throttle_names

    try:
        return throttle_names(int(text, 16))
    except ValueError:
        return None


def _lines(text: str, cells: int) -> list[list[str]]:
    lines = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    return [line for line in lines if len(line) == cells]


def _number(text: str) -> int | None:
    number = parse_int(text)
    return None if number is None or number < 0 else number


def _figure(text: str) -> float | None:
    try:
        figure = float(text)
    except ValueError:
        return None
    return figure if math.isfinite(figure) else None
