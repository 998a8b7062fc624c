"""The objects of a job: JobSet or LeaderWorkerSet, ConfigMaps, the Service of servers. Pure.

Versions: jobset.x-k8s.io/v1alpha2 (JobSet 0.12), leaderworkerset.x-k8s.io/v1 (LeaderWorkerSet 0.8),
Kueue's label as of 0.19.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestrator.core.kubernetes.pod_template import pod_template, secrets_name
from orchestrator.core.kubernetes.pods import PodGroup, group_pods
from orchestrator.core.kubernetes.settings import PodSettings
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.workload import Shape

# The API server refuses a ConfigMap whose contents are larger together.
MAX_CONFIG_MAP_BYTES = 1024 * 1024
FILES = ("code.yaml", "jobset.yaml", "leaderworkerset.yaml", "plan.yaml", "service.yaml")
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
LWS_NAME = "leaderworkerset.sigs.k8s.io/name"
LWS_INDEX = "leaderworkerset.sigs.k8s.io/worker-index"


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesObject:
    """One object, the file that it is written to, and the comment at its beginning."""

    file: str
    document: Mapping[str, object]
    head: tuple[str, ...] = ()


def job_manifests(plan: Plan, settings: PodSettings, shape: Shape) -> Iterator[KubernetesObject]:
    """What runs ``plan``, without the ConfigMaps. ``shape``: that of the workload."""
    head = tuple(_head(plan, settings))
    if settings.serves is None:
        yield KubernetesObject(file="jobset.yaml", document=_job_set(plan, settings), head=head)
        return
    servers = _leader_worker_set(plan, settings)
    yield KubernetesObject(file="leaderworkerset.yaml", document=servers, head=head)
    yield KubernetesObject(file="service.yaml", document=_service(settings, settings.serves, shape))


def config_map(settings: PodSettings, part: str, files: Mapping[str, bytes]) -> KubernetesObject:
    """The ConfigMap ``NAME-part`` with ``files``."""
    document = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": _metadata(settings, f"{settings.name}-{part}"),
        "binaryData": {name: base64.b64encode(data).decode() for name, data in files.items()},
    }
    return KubernetesObject(file=f"{part}.yaml", document=document)


def _head(plan: Plan, settings: PodSettings) -> Iterator[str]:
    yield f"{plan.workload} of the cluster {plan.cluster}, written by orchestrate export kubernetes"
    ranks = f"{plan.world_size} ranks in {len(plan.nodes)} pods"
    yield f"{ranks}, launcher {plan.launcher}: {plan.launcher_reason}"
    for mode in plan.ladder:
        if mode.intent == "use":
            yield f"communication mode {mode.rung}: {mode.reason}"
    yield from (f"{excluded.node} is left out: {excluded.reason}" for excluded in plan.excluded)
    yield from (f"warning: {warning}" for warning in plan.warnings)
    if any(not isinstance(v.value, str) for share in plan.nodes for v in share.env):
        yield f"the Secret {secrets_name(settings)} has to be there; see docs/kubernetes.md"


def _metadata(settings: PodSettings, name: str, **labels: str) -> dict[str, object]:
    namespace = {"namespace": settings.namespace} if settings.namespace else {}
    return {"name": name, **namespace, "labels": {**_labels(settings), **labels}}


def _labels(settings: PodSettings) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": settings.name,
        "app.kubernetes.io/managed-by": "orchestrate",
    }


def _queue(settings: PodSettings) -> dict[str, str]:
    return {QUEUE_LABEL: settings.queue} if settings.queue else {}


def _job_set(plan: Plan, settings: PodSettings) -> dict[str, object]:
    groups = group_pods(plan)
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": _metadata(settings, settings.name, **_queue(settings)),
        "spec": {
            "network": {"enableDNSHostnames": True, "subdomain": settings.name},
            "successPolicy": {"operator": "All"},
            # A pod that fails ends all of them, as a rank that fails does over SSH.
            "failurePolicy": {"maxRestarts": 0},
            "replicatedJobs": [_replicated_job(plan, group, settings) for group in groups],
        },
    }


def _replicated_job(plan: Plan, group: PodGroup, settings: PodSettings) -> dict[str, object]:
    template = pod_template(plan, group, settings, _labels(settings))
    spec = template["spec"]
    assert isinstance(spec, dict)
    job = {
        "completionMode": "Indexed",
        "completions": len(group.shares),
        "parallelism": len(group.shares),
        "backoffLimit": 0,
        "template": {**template, "spec": {"restartPolicy": "Never", **spec}},
    }
    return {"name": group.name, "replicas": 1, "template": {"spec": job}}


def _leader_worker_set(plan: Plan, settings: PodSettings) -> dict[str, object]:
    """``pods.find_misfit`` found that all pods but perhaps the first are alike."""
    templates = [pod_template(plan, g, settings, _labels(settings)) for g in group_pods(plan)]
    leader = {"leaderTemplate": templates[0]} if len(templates) > 1 else {}
    return {
        "apiVersion": "leaderworkerset.x-k8s.io/v1",
        "kind": "LeaderWorkerSet",
        "metadata": _metadata(settings, settings.name, **_queue(settings)),
        "spec": {
            "replicas": settings.replicas,
            "leaderWorkerTemplate": {
                "size": len(plan.nodes),
                "restartPolicy": "RecreateGroupOnPodRestart",
                **leader,
                "workerTemplate": templates[-1],
            },
        },
    }


def _service(settings: PodSettings, port: int, shape: Shape) -> dict[str, object]:
    """Where ranks do not communicate, every pod has a server of its own; else the leader has it."""
    selector = {LWS_NAME: settings.name}
    if shape is not Shape.INDEPENDENT:
        selector[LWS_INDEX] = "0"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(settings, f"{settings.name}-serve"),
        "spec": {
            "selector": selector,
            "ports": [{"port": port, "targetPort": port, "protocol": "TCP"}],
        },
    }
