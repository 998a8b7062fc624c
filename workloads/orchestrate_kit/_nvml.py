"""Energy and power of GPUs, asked of the driver's own library. Numbers are those of nvml.h."""

from __future__ import annotations

import ctypes
import time
from ctypes import byref

from ._energy import Reading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, List, Optional, Tuple, TypeVar

    Number = TypeVar("Number", int, float)

LIBRARY = "libnvidia-ml.so.1"
POWER_INSTANT = 186  # a field value, in mW; nvmlDeviceGetPowerUsage is a mean over one second


class FieldValue(ctypes.Structure):
    """nvmlFieldValue_t with its union read as an unsigned int, which power is"""

    _fields_ = [
        ("field", ctypes.c_uint32),
        ("scope", ctypes.c_uint32),
        ("timestamp", ctypes.c_int64),
        ("latency", ctypes.c_int64),
        ("type", ctypes.c_uint),
        ("result", ctypes.c_uint),
        ("value", ctypes.c_uint),
        ("unused", ctypes.c_uint),
    ]


class NvmlError(Exception):
    """The library is not there, or refuses; the message says what."""


class Nvml:
    """The library. Every method raises :class:`NvmlError`."""

    def __init__(self, library: Any = None) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY) if library is None else library
        except OSError as error:
            raise NvmlError("no NVIDIA driver: %s" % error) from None
        self._call("nvmlInit_v2")

    def count(self) -> int:
        """How many GPUs this machine has."""
        found = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", byref(found))
        return int(found.value)

    def by_index(self, index: int) -> Tuple[str, ctypes.c_void_p]:
        """A GPU's UUID and handle; ``index`` counts as nvidia-smi does."""
        device = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), byref(device))
        text = ctypes.create_string_buffer(96)
        self._call("nvmlDeviceGetUUID", device, text, ctypes.c_uint(len(text)))
        return text.value.decode("ascii", "replace"), device

    def read(self, device: ctypes.c_void_p) -> Reading:
        """Counter and power, one directly after the other. Raises nothing."""
        millijoules, no_counter = _attempt(self._millijoules, device)
        watts, no_power = _attempt(self._watts, device)
        return Reading(time.monotonic(), millijoules, watts, no_counter or no_power)

    def _millijoules(self, device: ctypes.c_void_p) -> int:
        found = ctypes.c_ulonglong()
        self._call("nvmlDeviceGetTotalEnergyConsumption", device, byref(found))
        return int(found.value)

    def _watts(self, device: ctypes.c_void_p) -> float:
        instant = self._instant_milliwatts(device)
        if instant is not None:
            return instant / 1e3
        found = ctypes.c_uint()
        self._call("nvmlDeviceGetPowerUsage", device, byref(found))
        return int(found.value) / 1e3

    def _instant_milliwatts(self, device: ctypes.c_void_p) -> Optional[int]:
        """None where the driver or the GPU has no such field."""
        field = FieldValue(field=POWER_INSTANT)
        try:
            self._call("nvmlDeviceGetFieldValues", device, ctypes.c_int(1), byref(field))
        except NvmlError:
            return None
        return None if field.result else int(field.value)

    def _call(self, name: str, *arguments: Any) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise NvmlError("NVML: the driver has no %s" % name) from None
        code = int(function(*arguments))
        if code:
            raise NvmlError("NVML: %s: %s" % (name, self._error_text(code)))

    def _error_text(self, code: int) -> str:
        try:
            function = self._library.nvmlErrorString
            function.restype = ctypes.c_char_p
            said = function(ctypes.c_int(code))
        except (AttributeError, TypeError):
            said = None
        return said.decode("ascii", "replace") if isinstance(said, bytes) else "error %d" % code


def _attempt(
    ask: Callable[[ctypes.c_void_p], Number], device: ctypes.c_void_p
) -> Tuple[Optional[Number], str]:
    """The answer, or why there is none."""
    try:
        return ask(device), ""
    except NvmlError as error:
        return None, str(error)


def find_gpus(nvml: Nvml, visible: Optional[str]) -> List[Tuple[str, Any]]:
    """UUIDs and handles of the GPUs that ``visible``, a CUDA_VISIBLE_DEVICES, shows; None shows
    all. Raises :class:`NvmlError` for one that is not there.
    """
    gpus = [nvml.by_index(index) for index in range(nvml.count())]
    if visible is None:
        return gpus
    return [_named_gpu(name, gpus) for name in shown_names(visible)]


def shown_names(visible: str) -> List[str]:
    """What CUDA_VISIBLE_DEVICES names, up to the first item that hides the rest."""
    names: List[str] = []
    for name in visible.split(","):
        if name.strip() in ("", "-1"):
            break
        names.append(name.strip())
    return names


def _named_gpu(name: str, gpus: List[Tuple[str, Any]]) -> Tuple[str, Any]:
    if name.startswith("MIG-"):
        raise NvmlError("%s is a part of a GPU, and only whole GPUs count energy" % name)
    if name.isdigit() and int(name) < len(gpus):
        return gpus[int(name)]
    hits = [gpu for gpu in gpus if name.startswith("GPU-") and gpu[0].startswith(name)]
    if len(hits) != 1:
        raise NvmlError("NVML knows no GPU %s" % name)
    return hits[0]
