"""The driver's own library as nvml.h declares it: structures, calls, plain values as answers."""

from __future__ import annotations

import ctypes
from ctypes import byref

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LIBRARY = "libnvidia-ml.so.1"


class Memory(ctypes.Structure):
    """nvmlMemory_v2_t"""

    _fields_ = [
        ("version", ctypes.c_uint),
        ("total", ctypes.c_ulonglong),
        ("reserved", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    ]


class OldMemory(ctypes.Structure):
    """nvmlMemory_t: what is used includes what the driver reserves."""

    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class Pci(ctypes.Structure):
    """nvmlPciInfo_t"""

    _fields_ = [
        ("legacy", ctypes.c_char * 16),
        *[(name, ctypes.c_uint) for name in ("domain", "bus", "device", "id", "subsystem")],
        ("address", ctypes.c_char * 32),
    ]


class GpuProcessInfo(ctypes.Structure):
    """nvmlProcessInfo_v2_t"""

    _fields_ = [
        ("pid", ctypes.c_uint),
        ("memory", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    ]


class Fabric(ctypes.Structure):
    """nvmlGpuFabricInfo_v2_t"""

    _fields_ = [
        ("version", ctypes.c_uint),
        ("cluster", ctypes.c_uint8 * 16),
        ("status", ctypes.c_uint),
        ("clique", ctypes.c_uint32),
        ("state", ctypes.c_uint8),
        ("health", ctypes.c_uint32),
    ]


class Margin(ctypes.Structure):
    """nvmlMarginTemperature_v1_t"""

    _fields_ = [("version", ctypes.c_uint), ("margin", ctypes.c_int)]


class FieldValue(ctypes.Structure):
    """nvmlFieldValue_t with its union read as an integer"""

    _fields_ = [
        ("field", ctypes.c_uint32),
        ("scope", ctypes.c_uint32),
        ("timestamp", ctypes.c_int64),
        ("latency", ctypes.c_int64),
        ("type", ctypes.c_uint),
        ("result", ctypes.c_uint),
        ("value", ctypes.c_ulonglong),
    ]


class Nvml:
    """The library; ``None`` stands for everything that it, a card or our rights do not allow."""

    def __init__(self, library: Any) -> None:
        self._library = library

    def call(self, name: str, *arguments: Any) -> int:
        """The function's own code, 0 = done; -1 if the library has no such function."""
        try:
            function = getattr(self._library, name)
        except AttributeError:
            return -1
        return int(function(*arguments))

    def device(self, index: int) -> tuple[ctypes.c_void_p, int]:
        """The handle of a GPU, and 0 or the code for why there is none."""
        device = ctypes.c_void_p()
        return device, self.call(
            "nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), byref(device)
        )

    def number(self, name: str, *arguments: Any, kind: Any = ctypes.c_uint) -> int | None:
        """What a function with one result says."""
        found = kind()
        return None if self.call(name, *arguments, byref(found)) else int(found.value)

    def numbers(self, name: str, device: Any, count: int) -> list[int] | None:
        """What a function with ``count`` results says."""
        found = [ctypes.c_uint() for _ in range(count)]
        if self.call(name, device, *(byref(one) for one in found)):
            return None
        return [int(one.value) for one in found]

    def text(self, name: str, *device: Any) -> str:
        buffer = ctypes.create_string_buffer(256)
        failed = self.call(name, *device, buffer, ctypes.c_uint(len(buffer)))
        return "" if failed else buffer.value.decode(errors="replace")

    def field(self, device: Any, number: int, scope: int = 0) -> int | None:
        """A field value; only of the unsigned kinds."""
        return self.fields(device, [(number, scope)])[0]

    def fields(self, device: Any, wanted: list[tuple[int, int]]) -> list[int | None]:
        """The same for several pairs of a number and a scope, in one call."""
        values = (FieldValue * len(wanted))()
        for value, (number, scope) in zip(values, wanted):
            value.field, value.scope = number, scope
        failed = self.call("nvmlDeviceGetFieldValues", device, ctypes.c_int(len(wanted)), values)
        return [None if failed else _unsigned(value) for value in values]


def _unsigned(value: FieldValue) -> int | None:
    if value.result or value.type not in (1, 2, 3):
        return None
    return int(value.value & 0xFFFFFFFF if value.type == 1 else value.value)


def open_library() -> tuple[Nvml | None, str]:
    """The initialised library, or why there is none."""
    try:
        nvml = Nvml(ctypes.CDLL(LIBRARY))
    except OSError as error:
        return None, str(error)
    failed = nvml.call("nvmlInit_v2")
    return (None, f"nvmlInit failed with {failed}") if failed else (nvml, "")
