"""The state of the GPUs: before, after, and once a second between. NVML, else nvidia-smi.

What does not change in between is not asked for: the coordinator's probe has found it.
"""

from __future__ import annotations

import csv
import io
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

INTERVAL_S = 1.0
ASK_S = 20.0
MAX_SAMPLES = 20_000
# Reasons of throttling by bit, as NVML defines them; the last column: a fault of the machine.
REASONS = (
    (0x0000000000000001, "idle", False),
    (0x0000000000000002, "application clocks", False),
    (0x0000000000000004, "power cap", False),
    (0x0000000000000008, "hardware slowdown", True),
    (0x0000000000000010, "sync boost", False),
    (0x0000000000000020, "thermal (software)", True),
    (0x0000000000000040, "thermal (hardware)", True),
    (0x0000000000000080, "power brake", True),
    (0x0000000000000100, "display clocks", False),
)
# What is asked for, by nvidia-smi's names.
STATE = {
    "uuid": "uuid",
    "temperature_c": "temperature.gpu",
    "power_w": "power.draw",
    "sm_clock_mhz": "clocks.sm",
    "memory_clock_mhz": "clocks.mem",
    "throttle": "clocks_event_reasons.active",
    "ecc_uncorrected": "ecc.errors.uncorrected.volatile.total",
    "ecc_corrected": "ecc.errors.corrected.volatile.total",
    "remap_pending": "remapped_rows.pending",
    "remap_failed": "remapped_rows.failure",
    "used_mib": "memory.used",
}
# One field that a driver does not know fails a whole query: older ones, then those without remaps.
_OLDER = {**STATE, "throttle": "clocks_throttle_reasons.active"}
_OPTIONAL = ("throttle", "remap_pending", "remap_failed")
VARIANTS = (STATE, _OLDER, {key: name for key, name in STATE.items() if key not in _OPTIONAL})
CONSTANT = ("name", "driver", "power_limit_w", "sm_clock_max_mhz", "ecc_mode", "total_mib")
SAMPLE = ("uuid", "temperature_c", "power_w", "sm_clock_mhz", "throttle", "utilization")


def reasons(bits: int) -> list[str]:
    """The names of throttle reasons."""
    return [name for bit, name, _ in REASONS if bits & bit]


def faults(bits: int) -> list[str]:
    """Those that mean that something is wrong with cooling, power or the board."""
    return [name for bit, name, fault in REASONS if bits & bit and fault]


def constant(facts: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What stays as it is, by UUID, from the probe of this node; nothing without one."""
    return {
        gpu["uuid"]: {
            "name": gpu["name"],
            "driver": facts.get("driver") or None,
            "power_limit_w": gpu["power_limit_w"],
            "sm_clock_max_mhz": gpu["sm_clock_max_mhz"],
            "ecc_mode": {True: "Enabled", False: "Disabled"}.get(gpu["ecc"]["enabled"]),
            "total_mib": gpu["memory_bytes"] / 2**20,
        }
        for gpu in facts.get("gpus", ())
    }


def state(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Every GPU of this machine by its UUID, and what could not be seen.

    ``{"gpus": {uuid: {...}}, "unseen": "..."}``; what neither driver nor ``facts`` report is None.
    """
    unknown = dict.fromkeys(CONSTANT)
    known, now = constant(facts), _now()
    gpus = {uuid: {**unknown, **known.get(uuid, {}), **gpu} for uuid, gpu in now["gpus"].items()}
    return {**now, "gpus": gpus}


def _now() -> dict[str, Any]:
    try:
        return {"gpus": _by_nvml(), "unseen": "", "source": "NVML"}
    except ImportError:
        pass
    except Exception as error:  # noqa: BLE001 - NVML's own errors; nvidia-smi may still work
        nvml = f"NVML: {error}; "
        return {**_by_nvidia_smi(), "nvml": nvml}
    return _by_nvidia_smi()


def _by_nvidia_smi() -> dict[str, Any]:
    error = "nvidia-smi gave nothing"
    for fields in VARIANTS:
        try:
            text = _query(fields.values())
        except (OSError, subprocess.SubprocessError) as failed:
            error = f"nvidia-smi: {failed}"
            continue
        return {"gpus": parse_table(text, list(fields)), "unseen": "", "source": "nvidia-smi"}
    return {"gpus": {}, "unseen": error, "source": ""}


def _query(fields: Iterable[str]) -> str:
    argv = ["nvidia-smi", f"--query-gpu={','.join(fields)}", _FORMAT]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=ASK_S, check=True)
    return done.stdout


def _sample_fields() -> dict[str, str]:
    """The fields of a sample that this driver knows; without any, an empty answer."""
    for fields in VARIANTS:
        wanted = {key: fields[key] for key in SAMPLE if key in fields}
        with suppress(OSError, subprocess.SubprocessError):
            _query(wanted.values())
            return {**wanted, "utilization": "utilization.gpu"}
    return {}


_FORMAT = "--format=csv,noheader,nounits"


def parse_table(text: str, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
    """nvidia-smi's lines as GPUs by UUID. Lines with another number of cells are left out."""
    found: dict[str, dict[str, Any]] = {}
    for row in csv.reader(io.StringIO(text), skipinitialspace=True):
        if len(row) == len(keys):
            gpu = {key: parse_cell(key, cell) for key, cell in zip(keys, row, strict=True)}
            found[str(gpu["uuid"])] = gpu
    return found


def parse_cell(key: str, cell: str) -> Any:
    """A number, a name, or None for what the driver does not report."""
    text = cell.strip()
    if text.startswith("[") or text in {"N/A", "Unknown Error", ""}:
        return None
    if key == "uuid":
        return text
    if key in {"remap_pending", "remap_failed"}:
        return {"yes": 1, "no": 0}.get(text.lower(), _number(text))
    if key == "throttle":
        with suppress(ValueError):
            return int(text, 16)
        return None
    return _number(text)


def _number(text: str) -> float | None:
    with suppress(ValueError):
        return float(text)
    return None


def _by_nvml() -> dict[str, dict[str, Any]]:
    """Raises ``ImportError`` without the bindings, and NVML's errors."""
    import pynvml

    pynvml.nvmlInit()
    try:
        handles = [
            pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())
        ]
        gpus = [_nvml_state(pynvml, handle) for handle in handles]
    finally:
        pynvml.nvmlShutdown()
    return {str(gpu["uuid"]): gpu for gpu in gpus}


def _nvml_state(nvml: Any, handle: Any) -> dict[str, Any]:
    def query(function: str, *arguments: Any) -> Any:
        with suppress(nvml.NVMLError, AttributeError):  # not on this GPU, or not in this release
            return getattr(nvml, function)(handle, *arguments)
        return None

    ecc = [
        query("nvmlDeviceGetTotalEccErrors", kind, nvml.NVML_VOLATILE_ECC)
        for kind in (nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED)
    ]
    remaps = query("nvmlDeviceGetRemappedRows")
    memory, use = query("nvmlDeviceGetMemoryInfo"), query("nvmlDeviceGetUtilizationRates")
    power = query("nvmlDeviceGetPowerUsage")
    return {
        "uuid": _text(query("nvmlDeviceGetUUID")),
        "temperature_c": query("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        "power_w": None if power is None else power / 1e3,
        "sm_clock_mhz": query("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        "memory_clock_mhz": query("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
        "throttle": query("nvmlDeviceGetCurrentClocksThrottleReasons"),
        "ecc_uncorrected": ecc[0],
        "ecc_corrected": ecc[1],
        "remap_pending": None if remaps is None else int(remaps[2]),
        "remap_failed": None if remaps is None else int(remaps[3]),
        "used_mib": None if memory is None else memory.used / 2**20,
        "utilization": None if use is None else use.gpu,
    }


def _text(value: Any) -> Any:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


class Telemetry:
    """Samples of the machine's GPUs once a second, taken beside the measurements.

    One thread of the rank that leads the node: it sleeps in a read, or between two looks.
    """

    def __init__(self, uuids: Iterable[str]) -> None:
        self._uuids = frozenset(uuids)
        self._samples: list[dict[str, Any]] = []
        self._over = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._began = time.monotonic()
        target = self._poll if _has_nvml() else self._read
        self._thread = threading.Thread(target=target, name="telemetry", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> list[dict[str, Any]]:
        """End the sampling; every sample: seconds since the start, GPU, values."""
        self._over.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join(ASK_S)
        return self._samples

    def _poll(self) -> None:
        while not self._over.wait(INTERVAL_S):
            try:
                gpus = _by_nvml()
            except Exception:  # noqa: BLE001 - no samples, which the figures say
                return
            self._keep(gpus)

    def _read(self) -> None:
        fields = _sample_fields()
        if not fields:
            return
        each = f"--loop-ms={int(INTERVAL_S * 1000)}"
        argv = ["nvidia-smi", f"--query-gpu={','.join(fields.values())}", _FORMAT, each]
        with (
            suppress(OSError),
            subprocess.Popen(
                argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            ) as process,
        ):
            self._process = process
            if self._over.is_set():
                process.terminate()
            assert process.stdout
            self._follow(process.stdout, list(fields))

    def _follow(self, lines: IO[str], keys: Sequence[str]) -> None:
        for line in lines:
            self._keep(parse_table(line, keys))

    def _keep(self, gpus: Mapping[str, Mapping[str, Any]]) -> None:
        at = round(time.monotonic() - self._began, 2)
        for uuid, gpu in gpus.items():
            if uuid in self._uuids and len(self._samples) < MAX_SAMPLES:
                values = {key: gpu.get(key) for key in SAMPLE if key != "uuid"}
                self._samples.append({"t": at, "uuid": uuid, **values})


def _has_nvml() -> bool:
    try:
        _by_nvml()
    except Exception:  # noqa: BLE001 - not importable, or not working here
        return False
    return True
