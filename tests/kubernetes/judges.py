"""Whether an API server would take an object: by published models, and by what the API says.

JobSets and pod templates are read by the models that Kubeflow's trainer generates of the OpenAPI
documents of JobSet and Kubernetes. What they do not know they drop: an object that comes out of
them as it went in has no unknown field and none of another type.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

SCHEMAS = Path(__file__).parent / "schemas"


class Refused(Exception):
    """An API server would not take the object."""


def check_object(found: dict[str, Any]) -> None:
    """Raises :class:`Refused`."""
    if found["kind"] == "JobSet":
        _read_by("jobset_v1alpha2_job_set", "JobsetV1alpha2JobSet", found)
        return
    schema = json.loads((SCHEMAS / f"{found['kind'].lower()}.json").read_text())
    validator = jsonschema.Draft202012Validator(schema, registry=_registry())
    validator.check_schema(schema)
    try:
        validator.validate(found)
    except jsonschema.ValidationError as error:
        raise Refused(error.message) from error
    for template in _templates(found):
        _read_by("io_k8s_api_core_v1_pod_template_spec", "IoK8sApiCoreV1PodTemplateSpec", template)


def _templates(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    group = found["spec"]["leaderWorkerTemplate"] if found["kind"] == "LeaderWorkerSet" else {}
    yield from (group[name] for name in ("leaderTemplate", "workerTemplate") if name in group)


def _registry() -> Registry[Any]:
    text = (SCHEMAS / "metadata.json").read_text()
    return Registry().with_resource("metadata.json", Resource.from_contents(json.loads(text)))


def _read_by(module: str, name: str, found: dict[str, Any]) -> None:
    models = pytest.importorskip(f"kubeflow_trainer_api.models.{module}")
    try:
        again = getattr(models, name).from_dict(found).to_dict()
    except ValueError as error:
        raise Refused(str(error)) from error
    if again != found:
        raise Refused(f"unknown fields: {_difference(found, again)}")


def _difference(found: Any, again: Any, place: str = "") -> str:
    """The first place where they differ."""
    if isinstance(found, dict) and isinstance(again, dict):
        for key in {**found, **again}:
            if found.get(key) != again.get(key):
                return _difference(found.get(key), again.get(key), f"{place}.{key}")
    if isinstance(found, list) and isinstance(again, list) and len(found) == len(again):
        for number, (one, other) in enumerate(zip(found, again, strict=True)):
            if one != other:
                return _difference(one, other, f"{place}[{number}]")
    return f"{place}: {found!r} is read as {again!r}"
