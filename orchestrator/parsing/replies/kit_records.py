"""What ranks report through the kit, one JSON object a line, made into events. Nothing is trusted.

A bad line is dropped and described, never raised: a workload's mistake must not end its run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.core.run.kit_reports import EnergyReported, GpuEnergy, Progressed, Reported
from orchestrator.core.run.node_telemetry import TelemetryRead
from orchestrator.parsing.replies.record_lines import as_float, as_int, parse_object, unknown_type
from orchestrator.parsing.replies.records import printable_text

MAX_LINE_BYTES = 64 * 1024
MAX_NAME = 128
MAX_FIELDS = 32
MAX_WINDOWS = 256
MAX_GPUS = 64
MAX_PROBLEMS = 16
MAX_PROBLEM = 300
WORK = ("requests", "tokens", "input_tokens", "output_tokens")

Report = Reported | Progressed | EnergyReported | TelemetryRead
TELEMETRY = (
    "watts",
    "temperature_c",
    "memory_used_bytes",
    "nvlink_sent_bytes",
    "nvlink_received_bytes",
)
THROTTLED = ("thermal", "power")


def parse_report(node: str, rank: int, line: bytes, position: int) -> Report | str | None:
    """An event, or None for a record that is none (artifacts are found by listing), or what is
    wrong. ``position``: the byte after ``line`` in the rank's report file.
    """
    record = parse_object(line, MAX_LINE_BYTES)
    if isinstance(record, str):
        return f"rank {rank} reported {record}"
    match record.get("type"):
        case "metric":
            return _parse_metric(node, rank, record, position)
        case "progress":
            return _parse_progress(node, rank, record)
        case "energy":
            return _parse_energy(node, rank, record)
        case "telemetry":
            return _parse_telemetry(node, record)
        case "artifact" | "checkpoint":
            return None
        case other:
            return f"rank {rank} reported {unknown_type(other)}"


def _parse_metric(node: str, rank: int, record: Mapping[str, Any], position: int) -> Report | str:
    name, value = _metric_name(record.get("name")), as_float(record.get("value"))
    step = record.get("step")
    if name is None or value is None or not (step is None or type(step) is int):
        return f"rank {rank} reported a metric without a name, a number or a whole step"
    unit = _metric_name(record.get("unit")) or ""
    return Reported(
        node=node, rank=rank, name=name, value=value, unit=unit, step=step, position=position
    )


def _parse_progress(node: str, rank: int, record: Mapping[str, Any]) -> Report | str:
    done, total = as_float(record.get("done")), as_float(record.get("total"))
    if done is None or total is None:
        return f"rank {rank} reported progress without numbers"
    unit = _metric_name(record.get("unit")) or ""
    return Progressed(
        node=node,
        rank=rank,
        done=done,
        total=total,
        unit=unit,
        fields=_plain_fields(record.get("fields")),
    )


def _parse_energy(node: str, rank: int, record: Mapping[str, Any]) -> Report | str:
    seconds, window = as_float(record.get("seconds")), as_int(record.get("window"), 0, MAX_WINDOWS)
    gpus = _gpu_energies(record.get("gpus", []))
    if seconds is None or seconds < 0 or window is None or gpus is None:
        return f"rank {rank} reported energy without seconds, a window or its GPUs"
    problems = record.get("problems", [])
    told = problems if isinstance(problems, list) else ["problems that are no list"]
    return EnergyReported(
        node=node,
        rank=rank,
        window=window,
        seconds=seconds,
        asked="gpus" in record,
        final=record.get("final") is True,
        gpus=gpus,
        peak_watts=_not_negative(record.get("peak_watts")),
        problems=tuple(_brief(problem) for problem in told[:MAX_PROBLEMS]),
        work=_work(record.get("work")),
    )


def _parse_telemetry(node: str, record: Mapping[str, Any]) -> TelemetryRead:
    """What is a number not below 0; the rest is not known."""
    told = record.get("throttled")
    reasons = told if isinstance(told, dict) else {}
    throttled = {name: _not_negative(reasons.get(name)) for name in THROTTLED}
    return TelemetryRead(
        node=node,
        **{name: _not_negative(record.get(name)) for name in TELEMETRY},
        throttled={name: count for name, count in throttled.items() if count is not None},
    )


def _gpu_energies(given: object) -> tuple[GpuEnergy, ...] | None:
    """None for what is no list of GPUs."""
    if not isinstance(given, list) or not all(isinstance(gpu, dict) for gpu in given):
        return None
    return tuple(
        GpuEnergy(
            gpu=_brief(gpu.get("gpu")),
            joules=_not_negative(gpu.get("joules")),
            integrated=_not_negative(gpu.get("integrated")),
        )
        for gpu in given[:MAX_GPUS]
    )


def _work(given: object) -> dict[str, float]:
    """What is known by name and counted in numbers above 0."""
    counts = given if isinstance(given, dict) else {}
    numbers = {name: _not_negative(counts.get(name)) for name in WORK}
    return {name: number for name, number in numbers.items() if number}


def _brief(told: object) -> str:
    return printable_text(str(told)[:MAX_PROBLEM])


def _not_negative(value: object) -> float | None:
    number = as_float(value)
    return None if number is None or number < 0 else number


def _plain_fields(given: object) -> dict[str, float | str]:
    """The first fields with plain values; the rest is not worth a complaint."""
    if not isinstance(given, dict):
        return {}
    fields: dict[str, float | str] = {}
    for key, value in list(given.items())[:MAX_FIELDS]:
        number = as_float(value)
        if number is not None:
            fields[str(key)[:MAX_NAME]] = number
        elif isinstance(value, str):
            fields[str(key)[:MAX_NAME]] = value[:MAX_NAME]
    return fields


def _metric_name(value: object) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= MAX_NAME else None
