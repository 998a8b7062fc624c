"""The result object that scripts rely on, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from orchestrator.core.base.errors import ExitCode, InternalError, UsageError
from orchestrator.core.captures.outcome import CaptureResult, CaptureState
from orchestrator.core.diagnosis.diagnosis_model import (
    Advice,
    Confidence,
    Diagnosis,
    Evidence,
    FindingKind,
)
from orchestrator.core.model.prices import ApiPrice, ElectricityPrice
from orchestrator.core.model.workload import Direction
from orchestrator.core.verdict.cost import BreakEven, Cost, ElectricityCost
from orchestrator.core.verdict.energy import Energy, NodeEnergy
from orchestrator.core.verdict.result import (
    SCHEMA_VERSION,
    FailureResult,
    MetricResult,
    NodeResult,
    OutputsResult,
    PredictedMetric,
    Result,
    RungResult,
    Samples,
    Status,
    Verdict,
)

_LISTS = ("consequences", "alternatives", "besides", "references")


def to_object(result: Result) -> dict[str, Any]:
    """JSON-ready, in the order that people read. A figure that is not finite becomes null."""
    return {
        "schema_version": result.schema_version,
        "run_id": result.run_id,
        "status": result.status.value,
        "exit_code": int(result.exit_code),
        "cluster": result.cluster,
        "workload": result.workload,
        "launcher": result.launcher,
        "ladder": [asdict(rung) for rung in result.ladder],
        "nodes": [asdict(node) for node in result.nodes],
        "world_size": result.world_size,
        "metrics": {name: _metric_record(metric) for name, metric in result.metrics.items()},
        "outputs": {node: _outputs_record(came) for node, came in result.outputs.items()},
        "samples": asdict(result.samples) if result.samples else None,
        "energy": _energy_record(result.energy) if result.energy else None,
        "cost": asdict(result.cost) if result.cost else None,
        "timings": dict(result.timings),
        "failure": _failure_record(result.failure) if result.failure else None,
        "warnings": list(result.warnings),
        "report": result.report,
        "predictions": [asdict(each) for each in result.predictions],
        "notice": result.notice,
        "begins_anew": result.begins_anew,
        "captures": [asdict(capture) for capture in result.captures],
    }


def parse_object(data: Mapping[str, Any], *, where: str) -> Result:
    """The inverse of :func:`to_object`; ``where`` names the source in errors.

    Raises :class:`UsageError` for a newer schema, :class:`InternalError` for a damaged object.
    """
    version = data.get("schema_version") if isinstance(data, dict) else None
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise UsageError(
            f"the result has schema version {version}; this program knows up to {SCHEMA_VERSION}",
            id="OR-STORE-002",
            where=where,
            remedy="use the version of orchestrate that wrote it, or a newer one",
        )
    try:
        return _read_result(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InternalError(
            "the result cannot be read", id="OR-STORE-004", where=where, why=repr(error)
        ) from error


def _read_result(data: Mapping[str, Any]) -> Result:
    failure, samples = data["failure"], data["samples"]
    return Result(
        run_id=data["run_id"],
        status=Status(data["status"]),
        exit_code=ExitCode(data["exit_code"]),
        cluster=data["cluster"],
        workload=data["workload"],
        launcher=data["launcher"],
        world_size=data["world_size"],
        ladder=tuple(RungResult(**rung) for rung in data["ladder"]),
        nodes=tuple(NodeResult(**node) for node in data["nodes"]),
        metrics={name: _read_metric(metric) for name, metric in data["metrics"].items()},
        outputs={
            node: OutputsResult(**{**came, "left_out": tuple(came["left_out"])})
            for node, came in data.get("outputs", {}).items()  # results of earlier versions lack it
        },
        samples=Samples(**samples) if samples else None,
        energy=_read_energy(data["energy"]) if data.get("energy") else None,
        cost=_read_cost(data["cost"]) if data.get("cost") else None,
        timings=data["timings"],
        failure=_read_failure(failure) if failure else None,
        warnings=tuple(data["warnings"]),
        report=data["report"],
        # Results of earlier versions lack these.
        predictions=tuple(PredictedMetric(**each) for each in data.get("predictions", ())),
        notice=data.get("notice", ""),
        begins_anew=data.get("begins_anew", False),
        captures=tuple(_read_capture(capture) for capture in data.get("captures", ())),
        schema_version=data["schema_version"],
    )


def _read_capture(data: Mapping[str, Any]) -> CaptureResult:
    words = {"state": CaptureState(data["state"]), "reasons": tuple(data["reasons"])}
    return CaptureResult(**{**data, **words})


def _read_metric(data: Mapping[str, Any]) -> MetricResult:
    # Results of before metrics had a direction say nothing of it.
    direction = Direction(data.get("direction", Direction.INFO))
    return MetricResult(**{**data, "verdict": Verdict(data["verdict"]), "direction": direction})


def _metric_record(metric: MetricResult) -> dict[str, Any]:
    value = metric.value
    finite = value is not None and math.isfinite(value)
    words = {"verdict": metric.verdict.value, "direction": metric.direction.value}
    record = {**asdict(metric), **words, "value": value if finite else None}
    if metric.terminal:
        del record["terminal"]  # said of the exceptions only
    return record


def _energy_record(energy: Energy) -> dict[str, Any]:
    record = asdict(energy)
    return {"energy_valid": record.pop("valid"), **record, "reasons": list(energy.reasons)}


def _read_energy(data: Mapping[str, Any]) -> Energy:
    nodes = {name: NodeEnergy(**node) for name, node in data["nodes"].items()}
    rest = {name: value for name, value in data.items() if name != "energy_valid"}
    known = {"reasons": tuple(data["reasons"]), "nodes": nodes}
    return Energy(**{**rest, **known}, valid=data["energy_valid"])


def _read_cost(data: Mapping[str, Any]) -> Cost:
    electricity = (
        ElectricityCost(**{**part, "price": ElectricityPrice(**part["price"])})
        for part in data["electricity"]
    )
    even = (
        BreakEven(**{**part, "price": ApiPrice(**part["price"])}) for part in data["break_even"]
    )
    return Cost(**{**data, "electricity": tuple(electricity), "break_even": tuple(even)})


def _outputs_record(came: OutputsResult) -> dict[str, Any]:
    return {**asdict(came), "left_out": list(came.left_out)}


def _failure_record(failure: FailureResult) -> dict[str, Any]:
    diagnosis = failure.diagnosis
    return {
        **asdict(replace(failure, diagnosis=None)),
        "others": list(failure.others),
        "diagnosis": diagnosis_object(diagnosis) if diagnosis else None,
    }


def _read_failure(data: Mapping[str, Any]) -> FailureResult:
    # Results of before there was a diagnosis have none.
    found = data.get("diagnosis")
    diagnosis = _read_diagnosis(found) if found else None
    return FailureResult(**{**data, "others": tuple(data["others"]), "diagnosis": diagnosis})


def diagnosis_object(diagnosis: Diagnosis) -> dict[str, Any]:
    """JSON-ready."""
    return {
        **asdict(diagnosis),
        "confidence": diagnosis.confidence.value,
        "advice": diagnosis.advice.value,
        "kind": diagnosis.kind.value,
        "evidence": [asdict(line) for line in diagnosis.evidence],
        **{name: list(getattr(diagnosis, name)) for name in _LISTS},
    }


def _read_diagnosis(data: Mapping[str, Any]) -> Diagnosis:
    return Diagnosis(
        **{
            **data,
            "confidence": Confidence(data["confidence"]),
            "advice": Advice(data["advice"]),
            "kind": FindingKind(data.get("kind", FindingKind.CAUSE)),
            "evidence": tuple(Evidence(**line) for line in data["evidence"]),
            **{name: tuple(data.get(name, ())) for name in _LISTS},
        }
    )
