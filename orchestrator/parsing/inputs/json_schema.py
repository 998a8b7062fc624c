"""JSON Schemas of our YAML files, for editors and other programs."""

from __future__ import annotations

from typing import Any

from orchestrator.parsing.inputs.cluster_schema import ClusterFile
from orchestrator.parsing.inputs.suites.suite_schema import SuiteFile
from orchestrator.parsing.inputs.validation import Strict
from orchestrator.parsing.inputs.workloads.workload_schema import WorkloadFile

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def cluster_schema() -> dict[str, Any]:
    """The schema of an inventory file."""
    return _model_schema(ClusterFile, "orchestrate cluster")


def workload_schema() -> dict[str, Any]:
    """The schema of a workload.yaml."""
    return _model_schema(WorkloadFile, "orchestrate workload")


def suite_schema() -> dict[str, Any]:
    """The schema of a suite's file."""
    return _model_schema(SuiteFile, "orchestrate suite")


def _model_schema(model: type[Strict], title: str) -> dict[str, Any]:
    return {"$schema": _DIALECT, **model.model_json_schema(), "title": title}
