"""Exported jobs as Kubernetes reads them: objects by kind, and pods as it would start them."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator.core.kubernetes.pods import as_pods, plan_pods
from orchestrator.core.kubernetes.settings import PodSettings
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.request import RunRequest

EXPANDED = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


def plan_for_pods(
    request: RunRequest, settings: PodSettings, found: Mapping[str, Facts] | None = None
) -> tuple[RunRequest, Plan]:
    """The request for pods and its plan; ``found``: facts of nodes that were asked."""
    pods = as_pods(request, settings, found or {})
    plan = plan_pods(pods, settings, found or {}, {})
    assert isinstance(plan, Plan), plan
    return pods, plan


def read_objects(text: str) -> dict[str, dict[str, Any]]:
    """The objects of a stream of YAML by kind and name, such as ``ConfigMap/finetune-plan``."""
    objects = yaml.load_all(text, Loader=yaml.CSafeLoader)
    return {f"{each['kind']}/{each['metadata']['name']}": each for each in objects}


def read_folder(folder: Path) -> dict[str, dict[str, Any]]:
    """The objects of a folder."""
    return read_objects("---\n".join(path.read_text() for path in sorted(folder.glob("*.yaml"))))


def pod_specs(objects: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The specification of every pod that the job's controller makes, in node rank order, with
    ``index``: the variable by which it numbers them.
    """
    (job,) = (each for each in objects.values() if each["kind"] in {"JobSet", "LeaderWorkerSet"})
    if job["kind"] == "JobSet":
        jobs = [each["template"]["spec"] for each in job["spec"]["replicatedJobs"]]
        return [
            {**spec["template"]["spec"], "index": {"JOB_COMPLETION_INDEX": str(index)}}
            for spec in jobs
            for index in range(spec["completions"])
        ]
    group = job["spec"]["leaderWorkerTemplate"]
    workers = [group["workerTemplate"]] * (group["size"] - 1)
    templates = [group.get("leaderTemplate", group["workerTemplate"]), *workers]
    return [
        {**template["spec"], "index": {"LWS_WORKER_INDEX": str(index)}}
        for index, template in enumerate(templates)
    ]


def expand(text: str, environment: Mapping[str, str]) -> str:
    """As Kubernetes reads values: ``$$`` is a dollar, and unknown ``$(NAME)`` stay."""

    def value(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else environment.get(found[1], found[0])

    return EXPANDED.sub(value, text)


@dataclass(frozen=True, slots=True)
class PodProgram:
    """What the kubelet executes: the command and the variables of a container."""

    argv: list[str]
    env: dict[str, str]


def container_env(
    pod: Mapping[str, Any], secrets: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The variables of a pod's container; ``secrets`` are those of its Secret."""
    env: dict[str, str] = {}
    for variable in pod["containers"][0]["env"]:
        if "value" in variable:
            env[variable["name"]] = expand(variable["value"], env)
        else:
            env[variable["name"]] = (secrets or {})[variable["valueFrom"]["secretKeyRef"]["key"]]
    return {**env, **pod["index"]}


def mount_pod(
    pod: Mapping[str, Any],
    objects: Mapping[str, dict[str, Any]],
    root: Path,
    claims: Mapping[str, Path] | None = None,
    image: Mapping[str, Path] | None = None,
) -> PodProgram:
    """The pod with its volumes below ``root``: mount paths in its command become folders here.

    ``claims``: the folder behind a PersistentVolumeClaim; ``image``: folders of the image.
    """
    (container,) = pod["containers"]
    places = dict(image or {})
    sources = {volume["name"]: volume for volume in pod["volumes"]}
    for mount in container["volumeMounts"]:
        folder = root / mount["name"]
        source = sources[mount["name"]]
        if "configMap" in source:
            _project(objects[f"ConfigMap/{source['configMap']['name']}"], folder)
        elif "persistentVolumeClaim" in source:
            claim = source["persistentVolumeClaim"]["claimName"]
            folder = (claims or {})[claim] / mount.get("subPath", "")
        # As an emptyDir is made: anybody may write there.
        folder.mkdir(parents=True, exist_ok=True)
        if "emptyDir" in source:
            folder.chmod(0o777)
        places[mount["mountPath"]] = folder
    return PodProgram([_inside(word, places) for word in container["command"]], container_env(pod))


def _project(config_map: Mapping[str, Any], folder: Path) -> None:
    """As the kubelet does: files are links into a folder with a hidden name."""
    hidden = folder / "..data"
    hidden.mkdir(parents=True, exist_ok=True)
    for name, data in config_map["binaryData"].items():
        (hidden / name).write_bytes(base64.b64decode(data, validate=True))
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)


def _inside(word: str, places: Mapping[str, Path]) -> str:
    for mounted, folder in sorted(places.items(), reverse=True):  # what is mounted deeper counts
        if word == mounted or word.startswith(f"{mounted}/"):
            return f"{folder}{word.removeprefix(mounted)}"
    return word


def as_json(value: object) -> str:
    """For comparing what is equal but for the kind of its lists."""
    return json.dumps(value, sort_keys=True)
