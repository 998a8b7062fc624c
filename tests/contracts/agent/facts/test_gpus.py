"""GPUs as NVML and nvidia-smi tell of them, and what the kernel knows of their surroundings."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.model.facts import P2p
from orchestrator.node_agent.base.nvml_library import (
    Fabric,
    FieldValue,
    GpuProcessInfo,
    Margin,
    Memory,
    Nvml,
    Pci,
)
from orchestrator.node_agent.facts.gpu_facts import count_on_bus, find_gpus
from orchestrator.node_agent.facts.gpu_query import parse_users, run_tool
from orchestrator.node_agent.facts.nvml import describe_gpus
from orchestrator.node_agent.facts.smi import (
    ask_smi,
    parse_details,
    parse_gpus,
    parse_instances,
    parse_links,
    sysfs_address,
)
from orchestrator.node_agent.facts.xids import summarize_xids
from tests.fixtures.machines import HERE, Machine, Port, build, compute_ports

SMI = HERE / "gpus" / "smi"
KINDS = ("a30", "a100", "h100", "h200", "b200")
WARNED = """\
0, NVIDIA H200, GPU-11111111-aaaa-bbbb-cccc-000000000000, 143771, 4, 570.86.15
Warning: persistence mode is disabled on device 1.
2, NVIDIA GB10, GPU-33333333-aaaa-bbbb-cccc-000000000000, [N/A], [N/A], 570.86.15
"""
APPS = """\
GPU-22222222-aaaa-bbbb-cccc-000000000000, 4242
GPU-22222222-aaaa-bbbb-cccc-000000000000, 4243
No running processes found
"""
NOT_SUPPORTED = 3


# ---- NVML ---------------------------------------------------------------------------------------


STRUCTURES = {
    "nvmlDeviceGetMemoryInfo_v2": {"total": 80 << 30, "used": 1 << 30},
    "nvmlDeviceGetPciInfo_v3": {"domain": 0, "bus": 0x1A, "device": 0},
    "nvmlDeviceGetGpuFabricInfoV": {"state": 3},
    "nvmlDeviceGetMarginTemperature": {"margin": 52},
}


class Library:
    """A driver's library with one H100 behind a switch; ``absent`` functions do not exist."""

    def __init__(self, *absent: str) -> None:
        self._absent = absent

    def __getattr__(self, name: str) -> Callable[..., int]:
        if name in self._absent or not name.startswith("nvml"):
            raise AttributeError(name)
        return lambda *arguments: self._answer(name, arguments)

    def _answer(self, name: str, arguments: tuple[Any, ...]) -> int:
        out = getattr(arguments[-1], "_obj", None)
        numbers = {
            "nvmlSystemGetCudaDriverVersion_v2": 12080,
            "nvmlDeviceGetCount_v2": 1,
            "nvmlDeviceGetHandleByIndex_v2": 7,
            "nvmlDeviceGetPowerUsage": 71900,
            "nvmlDeviceGetTemperature": 30,
            "nvmlDeviceGetCurrentClocksEventReasons": 0x44,
            "nvmlDeviceGetCurrPcieLinkWidth": 8,
            "nvmlDeviceGetMaxPcieLinkWidth": 16,
            "nvmlDeviceGetNvLinkRemoteDeviceType": 2,
            "nvmlDeviceGetTotalEccErrors": 2,
            "nvmlDeviceGetTemperatureThreshold": 87,
        }
        texts = {
            "nvmlDeviceGetVbiosVersion": b"96.00.74.00.01",
            "nvmlDeviceGetInforomImageVersion": b"G520.0200.00.05",
            "nvmlDeviceGetName": b"NVIDIA H100 80GB HBM3",
            "nvmlSystemGetDriverVersion": b"570",
        }
        if name in numbers:
            out.value = numbers[name]
        elif name in texts:
            arguments[-2].value = texts[name]
        elif name == "nvmlDeviceGetGspFirmwareVersion":
            arguments[-1].value = b"570.86.15"
        elif name in STRUCTURES:
            for field, value in STRUCTURES[name].items():
                setattr(out, field, value)
        elif name == "nvmlDeviceGetNvLinkState":
            return self._link(arguments[1].value, out)
        elif name == "nvmlDeviceGetFieldValues":
            return _field(arguments[-1][0])
        elif name == "nvmlDeviceGetComputeRunningProcesses_v3":
            arguments[1]._obj.value = 1
            arguments[2][0].pid, arguments[2][0].memory = 4242, 1 << 30
        elif name == "nvmlDeviceGetRemappedRows":
            for pointer, value in zip(arguments[1:], (1, 0, 1, 0), strict=True):
                pointer._obj.value = value
        else:
            return NOT_SUPPORTED
        return 0

    @staticmethod
    def _link(number: int, out: Any) -> int:
        if number >= 18:
            return 2
        out.value = int(number != 5)
        return 0


def _field(out: FieldValue) -> int:
    known = {91: 18, 164: 26562, 38: 4, 82: 44}
    out.type, out.result = 1, 0 if out.field in known else NOT_SUPPORTED
    out.value = known.get(out.field, 0)
    return 0


@pytest.mark.processes
def test_a_tool_that_hangs_is_told_in_few_words() -> None:
    """With its command line first, a message that is cut short would lose the reason."""
    notes: list[str] = []

    assert run_tool(["sleep", "60"], notes, 0.05) == ""
    assert notes == ["sleep: no answer within 0.05 s"]


def test_what_the_library_says_is_understood() -> None:
    found = describe_gpus(Nvml(Library()))

    (gpu,) = found["gpus"]
    assert (found["driver"], found["cuda"]) == ("570", "12.8")
    assert (gpu["name"], gpu["pci"]) == ("NVIDIA H100 80GB HBM3", "0000:1a:00.0")
    assert gpu["memory_used_bytes"] == 1 << 30
    assert gpu["processes"] == [{"pid": 4242, "memory_bytes": 1 << 30}]
    assert gpu["power_w"] == 71.9
    assert gpu["throttle"] == ["sw_power_cap", "hw_thermal"]
    assert (gpu["temperature_c"], gpu["margin_c"]) == (30, 52)
    assert (gpu["memory_temperature_c"], gpu["memory_temperature_max_c"]) == (44, 87)
    assert (gpu["vbios"], gpu["inforom"]) == ("96.00.74.00.01", "G520.0200.00.05")
    assert gpu["gsp"] == "570.86.15"
    assert (gpu["pcie"]["width"], gpu["pcie"]["width_max"]) == (8, 16)
    assert gpu["rows"] == {"corrected": 1, "uncorrected": 0, "pending": True, "failed": False}
    assert gpu["fabric"] == "completed"
    assert gpu["nvlink"] == {
        "total": 18,
        "active": 17,
        "mbyte_s": 26562,
        "errors": 4,
        "peers": {"switch": 17},
    }


def test_what_the_library_does_not_know_is_unknown_and_not_zero() -> None:
    """An old driver, or a card without the feature."""
    margins = ("nvmlDeviceGetMarginTemperature", "nvmlDeviceGetGspFirmwareVersion")
    absent = ("nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetRemappedRows", "nvmlDeviceGetPowerUsage")
    gone = ("nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetCurrentClocksEventReasons")

    (gpu,) = describe_gpus(Nvml(Library(*absent, *gone, *margins)))["gpus"]

    assert gpu["margin_c"] == 87 - 30, "from the temperature at which an older driver slows down"
    assert gpu["gsp"] == ""
    assert gpu["ecc"]["uncorrected"] is None
    assert gpu["rows"] == {}
    assert gpu["power_w"] is None
    assert gpu["processes"] is None
    assert gpu["throttle"] is None
    assert gpu["power_limit_w"] is None


def test_the_structures_have_the_sizes_that_the_driver_checks() -> None:
    """nvml.h: nvmlMemory_v2 is 0x02000028, nvmlGpuFabricInfo_v2 is 0x02000024."""
    assert ctypes.sizeof(Margin) == 8
    assert ctypes.sizeof(Memory) == 0x28
    assert ctypes.sizeof(Fabric) == 0x24
    assert ctypes.sizeof(Pci) == 68
    assert ctypes.sizeof(GpuProcessInfo) == 24
    assert ctypes.sizeof(FieldValue) == 40


# ---- nvidia-smi ---------------------------------------------------------------------------------


def test_a_stray_warning_is_passed_over_and_what_is_not_available_counts_as_0() -> None:
    gpus, driver = parse_gpus(WARNED)

    assert driver == "570.86.15"
    assert [g["index"] for g in gpus] == [0, 2]
    assert gpus[1]["memory_bytes"] == 0
    assert parse_users(APPS) == {"GPU-22222222-aaaa-bbbb-cccc-000000000000": {4242, 4243}}


def _program(folder: Path, text: str) -> str:
    folder.mkdir()
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{text}\n")
    (folder / "nvidia-smi").chmod(0o755)
    return str(folder / "nvidia-smi")


def _like(kind: str) -> str:
    """What prints the recorded answers of a kind of card."""
    files = {
        "--query-gpu=index,name*": "gpus.csv",
        "--query-gpu=*": "details.csv",
        "--query-compute*": "apps.csv",
        "--query-remapped*": "rows.csv",
        "nvlink": "nvlink.txt",
    }
    cases = "".join(f"{asked}) cat '{SMI / kind / name}';;\n" for asked, name in files.items())
    return f'case "$1" in\n{cases}*) exit 2;; esac'


@pytest.mark.processes
@pytest.mark.parametrize("kind", KINDS)
def test_nvidia_smi_and_nvml_agree_on_every_kind_of_card(kind: str, tmp_path: Path) -> None:
    """The fallback tells the same of a healthy card, but for what it cannot know."""
    notes: list[str] = []
    found = ask_smi(_program(tmp_path / "bin", _like(kind)), notes)
    known = json.loads((HERE / "gpus" / "nvml.json").read_text())[kind]["gpu"]

    assert found is not None
    first, second = found["gpus"]
    assert second["processes"] == [{"pid": 4242, "memory_bytes": 0}]
    assert second["pci"] == "0000:3a:00.0"
    unknown = {"fabric", "memory_used_bytes", "memory_bytes", "nvlink", "pci"}
    unknown |= {"vbios", "inforom", "gsp", "margin_c"}
    unknown |= {"memory_temperature_c", "memory_temperature_max_c"}
    same = [name for name in known if name not in unknown]
    assert {name: first[name] for name in same} == {name: known[name] for name in same}
    assert first["nvlink"]["active"] == known["nvlink"]["active"]
    assert "fabric" not in first
    assert any("fabric" in note for note in notes)


@pytest.mark.processes
def test_a_driver_that_does_not_know_a_field_still_lists_its_gpus(tmp_path: Path) -> None:
    """Details are unknown then, with a note."""
    gpus = SMI / "h100" / "gpus.csv"
    known = f"--query-gpu=index,name*) cat '{gpus}';;"
    text = f'case "$1" in {known} *) echo invalid field; exit 2;; esac'
    notes: list[str] = []

    found = ask_smi(_program(tmp_path / "bin", text), notes)

    assert found is not None
    assert [gpu["name"] for gpu in found["gpus"]] == ["NVIDIA H100 80GB HBM3"] * 2
    assert "power_w" not in found["gpus"][0]
    assert any("invalid field" in note for note in notes)


@pytest.mark.processes
def test_a_driver_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No GPUs then, and notes with the tools' own words."""
    _program(tmp_path / "bin", "echo 'NVIDIA-SMI has failed: no driver'; exit 9")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")

    notes: list[str] = []

    found = find_gpus(notes)
    assert (found["gpus"], found["driver"]) == ([], "")
    assert "nvidia-smi ended with 9: NVIDIA-SMI has failed: no driver" in notes


@pytest.mark.processes
def test_a_gpu_that_fell_off_the_bus_is_told(tmp_path: Path) -> None:
    """Beside those that are left, in the driver's words."""
    gone = "Unable to determine the device handle for GPU 0000:B3:00.0: GPU is lost. Reboot"
    query = f"printf '%s\\n' '0, H100, GPU-a, 80, 4, 570.1' '{gone}'"
    program = _program(
        tmp_path / "bin", f'case "$1" in *driver_version*) {query} ;; *) exit 3 ;; esac'
    )
    found = ask_smi(str(program), [])
    assert found is not None
    assert [gpu["uuid"] for gpu in found["gpus"]] == ["GPU-a"]
    assert found["lost"] == [gone]


def test_instances_of_mig_are_those_of_their_gpu() -> None:
    text = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-a)
  MIG 3g.40gb     Device  0: (UUID: MIG-1)
  MIG 1g.10gb+me  Device  1: (UUID: MIG-2)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-b)
"""
    assert parse_instances(text) == {
        "GPU-a": [
            {"profile": "3g.40gb", "uuid": "MIG-1"},
            {"profile": "1g.10gb+me", "uuid": "MIG-2"},
        ],
        "GPU-b": [],
    }


def test_gpus_on_the_bus_are_counted_without_a_driver(tmp_path: Path) -> None:
    """Cards with and without a screen; no switches, sound functions or other makers' cards."""
    kinds = (("0x030200", "0x10de"), ("0x030000", "0x10de"), ("0x068000", "0x10de"))
    for number, (kind, vendor) in enumerate(
        (*kinds, ("0x040300", "0x10de"), ("0x030000", "0x1a03"))
    ):
        device = tmp_path / f"bus/pci/devices/0000:0{number}:00.0"
        device.mkdir(parents=True)
        (device / "class").write_text(f"{kind}\n")
        (device / "vendor").write_text(f"{vendor}\n")
    assert count_on_bus(str(tmp_path)) == 2
    assert count_on_bus(str(tmp_path / "nowhere")) is None


def test_odd_lines_are_survived() -> None:
    assert parse_details("nonsense\n0, 1, 2\n") == {}
    assert parse_links("GPU 0: x (UUID: u)\n\t Link 0: <inactive>\n\t Link 1: 25.781 GB/s\n") == {
        "u": {"total": 2, "active": 1, "mbyte_s": 25781}
    }
    assert sysfs_address("[N/A]") == ""


# ---- around the GPUs ----------------------------------------------------------------------------


def test_paths_are_those_of_pcie_and_of_links(tmp_path: Path) -> None:
    """An adapter below the GPU's switch is PIX, one across the sockets SYS, GPUs are NV18."""
    machine = Machine(ports=[*compute_ports(), Port(name="storage0")])
    facts = build(tmp_path, machine)

    assert facts.path("gpu0", "gpu7") == "NV18"
    assert facts.path("gpu3", "mlx5_3") == "PIX"
    assert facts.path("gpu3", "mlx5_2") == "NODE"
    assert facts.path("gpu3", "mlx5_7") == "SYS"
    assert facts.path("gpu7", "storage0") == "SYS"
    assert [gpu.numa_node for gpu in facts.gpus] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert facts.gpus[5].cpus == "32-63"


def test_redirection_is_read_where_it_may_be(tmp_path: Path) -> None:
    clean = build(tmp_path, Machine(name="clean", gpus=1))
    acs = build(tmp_path, Machine(name="acs", gpus=1, acs=0x1D, iommu="DMA-FQ"))
    unprivileged = build(tmp_path, Machine(name="user", gpus=1, config_bytes=64))

    assert clean.p2p == P2p(iommu="identity", redirecting=())
    assert acs.p2p.iommu == "DMA-FQ"
    assert acs.p2p.redirecting == ("0000:01:01.0", "0000:02:02.0")
    assert unprivileged.p2p.redirecting is None
    assert any("can only be read by root" in note for note in unprivileged.notes)


def test_xids_are_counted_by_device_and_code() -> None:
    lines = [
        b"2026-11-21T10:00:00 kernel: NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off\n",
        b"2026-11-21T11:00:00 kernel: NVRM: Xid (PCI:0000:3b:00): 79, pid=1, GPU has fallen off\n",
        b"2026-11-21T12:00:00 kernel: nvidia-nvswitch0: SXid (PCI:0000:c1:00.0): 12028, Link 3\n",
        b"2026-11-21T12:00:00 kernel: usb 1-1: Xid (PCI: nonsense\n",
    ]

    first, second = summarize_xids(lines)

    assert (first["code"], first["pci"], first["count"]) == (79, "0000:3b:00", 2)
    assert first["last"] == "2026-11-21T11:00:00"
    assert (second["code"], second["switch"]) == (12028, True)
    assert first["in_a_day"] == 2


def test_xids_are_counted_by_the_day() -> None:
    """The most in any 24 hours, across midnight, and not all of a month."""
    hours = ("01T00", "02T20", "02T23", "03T01", "03T19", "20T00")
    line = "2026-11-{}:00:00 kernel: NVRM: Xid (PCI:0000:3b:00): 31, pid=1\n"

    (found,) = summarize_xids([line.format(hour).encode() for hour in hours])

    assert (found["count"], found["in_a_day"]) == (6, 4)
