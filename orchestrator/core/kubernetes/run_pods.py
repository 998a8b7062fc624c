"""The pods of a run: one for each node, held by one JobSet until the run removes it. Pure.

Such a pod has no plan and no code of its own: its first process only keeps it alive. The
coordinator starts an agent in it, as it does on any other node, and everything follows as ever.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from orchestrator.core.kubernetes.manifests import QUEUE_LABEL
from orchestrator.core.kubernetes.pod_template import (
    GPU_RESOURCE,
    SWEEP_S,
    network_fields,
    placing_fields,
)
from orchestrator.core.kubernetes.settings import PodSettings
from orchestrator.core.model.inventory import GpuSpec, NodeSpec, PythonSpec, TransportKind
from orchestrator.core.model.pod_place import CONTAINER, JOB_LABEL, WORK_DIR, PodPlace
from orchestrator.core.model.request import RunRequest

JOBSET = "jobsets.jobset.x-k8s.io"
API_VERSION = "jobset.x-k8s.io/v1alpha2"
GROUP = "nodes"
# The digest of the run's token: who made the JobSet. A run of the same name elsewhere has another.
OWNER = "orchestrate/owner"
RUN = "orchestrate/run"
MAX_SLUG, DIGITS = 20, 10
DEFAULT_IDLE_S = 1800.0
# A JobSet that came to its end while no coordinator was there is removed by its controller.
KEPT_S = 3600
RDMA = "rdma/"
# What a run asks the API server for: verb, API group, resource.
VERBS = (
    ("create", "jobset.x-k8s.io", "jobsets"),
    ("get", "jobset.x-k8s.io", "jobsets"),
    ("delete", "jobset.x-k8s.io", "jobsets"),
    ("list", "", "pods"),
    ("create", "", "pods/exec"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPods:
    """How a run's pods are made. ``settings.name`` is that of the JobSet; ``context`` ``""`` = the
    current one; ``idle_s``: a pod ends after this long without ranks and coordinator.
    """

    settings: PodSettings
    context: str = ""
    idle_s: float = DEFAULT_IDLE_S


def job_name(run_id: str) -> str:
    """What the run's JobSet is called: as a host can be, with the beginning of the id."""
    words = re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")
    digest = hashlib.sha256(run_id.encode()).hexdigest()[:DIGITS]
    return f"run-{words[:MAX_SLUG].strip('-')}-{digest}".replace("--", "-")


def owner_mark(token: str) -> str:
    """What tells the run's JobSet from another one of the same name."""
    return hashlib.sha256(b"owner\0" + token.encode()).hexdigest()[:32]


def pod_nodes(nodes: Sequence[NodeSpec], pods: RunPods) -> tuple[NodeSpec, ...]:
    """The nodes as pods: consecutive ones that have equally many GPUs are one group."""
    made: list[NodeSpec] = []
    for number, (count, alike) in enumerate(groupby(nodes, key=_gpu_count), start=1):
        group = f"{GROUP}-{number}" if number > 1 else GROUP
        for index, spec in enumerate(alike):
            place = PodPlace(
                job=pods.settings.name,
                group=group,
                index=index,
                namespace=pods.settings.namespace,
                context=pods.context,
                python=pods.settings.python,
            )
            made.append(_pod_node(spec, count, place))
    return tuple(made)


def _pod_node(spec: NodeSpec, gpus: int, place: PodPlace) -> NodeSpec:
    return replace(
        spec,
        transport=TransportKind.KUBERNETES,
        gpus=GpuSpec(count=gpus, type=spec.gpus.type),
        python=PythonSpec(value=place.python, base=place.python),
        workdir=f"{WORK_DIR}/{place.group}-{place.index}",
        pod=place,
    )


def _gpu_count(spec: NodeSpec) -> int:
    return len(spec.gpus.indices) if spec.gpus.indices is not None else spec.gpus.count or 0


def job_set(request: RunRequest, pods: RunPods, hold: str) -> dict[str, object]:
    """The JobSet. ``hold``: the program that keeps a pod alive, as text."""
    settings = pods.settings
    places = [spec for spec in request.cluster.workers if spec.pod is not None]
    grouped = groupby(
        places, key=lambda spec: (spec.pod.group if spec.pod else "", spec.gpus.count)
    )
    labels = _labels(request, settings)
    queue = {QUEUE_LABEL: settings.queue} if settings.queue else {}
    namespace = {"namespace": settings.namespace} if settings.namespace else {}
    return {
        "apiVersion": API_VERSION,
        "kind": "JobSet",
        "metadata": {
            "name": settings.name,
            **namespace,
            "labels": {**labels, **queue},
            "annotations": {OWNER: owner_mark(request.token), RUN: request.run_id},
        },
        "spec": {
            # Nodes meet at addresses, which they are asked for.
            "network": {"enableDNSHostnames": False},
            "failurePolicy": {"maxRestarts": 0},
            "ttlSecondsAfterFinished": KEPT_S,
            "replicatedJobs": [
                {
                    "name": group,
                    "replicas": 1,
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": _job(_pod_spec(request, pods, hold, count or 0), labels, alike),
                    },
                }
                for (group, count), alike in grouped
            ],
        },
    }


def describe_pods(pods: RunPods) -> dict[str, str]:
    """What is asked of the cluster, for people: what was not said is left out."""
    settings = pods.settings
    asked = {
        "JobSet": f"{settings.name}, a name of its own in each run",
        "image": settings.image,
        "python": settings.python,
        "context": pods.context or "the current one of the kubeconfig",
        "namespace": settings.namespace or "that of the context",
        "queue": settings.queue,
        "asks for": ", ".join(f"{name}={value}" for name, value in settings.resources.items()),
        "machines": ", ".join(f"{key}={value}" for key, value in settings.node_selector.items()),
        "tolerations": ", ".join(each.key for each in settings.tolerations),
        "pull secret": settings.pull_secret,
        "claim": settings.results,
        "network": "that of the machine" if settings.host_network else "",
        "idle": f"a pod ends after {pods.idle_s:g} s without ranks and coordinator",
    }
    return {name: value for name, value in asked.items() if value}


def _job(
    spec: Mapping[str, object], labels: Mapping[str, str], nodes: Iterable[NodeSpec]
) -> dict[str, object]:
    """A pod that is lost ends no other one, and none takes its place: the run decides what is to
    become of the rest, as it does when it loses a node.
    """
    count = sum(1 for _ in nodes)
    return {
        "completionMode": "Indexed",
        "completions": count,
        "parallelism": count,
        "backoffLimitPerIndex": 0,
        "template": {"metadata": {"labels": dict(labels)}, "spec": spec},
    }


def _pod_spec(request: RunRequest, pods: RunPods, hold: str, gpus: int) -> dict[str, object]:
    settings = pods.settings
    limits = {**({GPU_RESOURCE: str(gpus)} if gpus else {}), **settings.resources}
    pins = any(name.startswith(RDMA) for name in settings.resources)
    volumes = dict(_volumes(settings))
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": math.ceil(request.budgets.grace_s) + SWEEP_S,
        # The API server is none of the ranks' business.
        "automountServiceAccountToken": False,
        **network_fields(settings),
        **placing_fields(settings),
        "containers": [
            {
                "name": CONTAINER,
                "image": settings.image,
                "command": [settings.python, "-I", "-S", "-c", hold, f"{pods.idle_s:g}"],
                **({"resources": {"limits": limits}} if limits else {}),
                **({"securityContext": {"capabilities": {"add": ["IPC_LOCK"]}}} if pins else {}),
                "volumeMounts": [{"name": name, **mount} for name, (_, mount) in volumes.items()],
            }
        ],
        "volumes": [{"name": name, **source} for name, (source, _) in volumes.items()],
    }


def _volumes(
    settings: PodSettings,
) -> Iterator[tuple[str, tuple[Mapping[str, object], Mapping[str, object]]]]:
    """By name: the source as a pod declares it, and the mount."""
    if settings.results:
        claim = {"persistentVolumeClaim": {"claimName": settings.results}}
        yield "work", (claim, {"mountPath": WORK_DIR, "subPath": settings.name})
    else:
        yield "work", ({"emptyDir": {}}, {"mountPath": WORK_DIR})
    yield "shm", ({"emptyDir": {"medium": "Memory"}}, {"mountPath": "/dev/shm"})  # noqa: S108


def _labels(request: RunRequest, settings: PodSettings) -> dict[str, str]:
    workload = re.sub(r"[^A-Za-z0-9]+", "-", request.job.workload.name)[:50].strip("-")
    return {
        JOB_LABEL: settings.name,
        "app.kubernetes.io/name": workload or "run",
        "app.kubernetes.io/managed-by": "orchestrate",
    }


def access_reviews(namespace: str) -> dict[str, object]:
    """Asks whether the user may do what a run does."""
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": dict(_attributes(namespace, *verb))},
            }
            for verb in VERBS
        ],
    }


def _attributes(namespace: str, verb: str, group: str, resource: str) -> Iterator[tuple[str, str]]:
    kind, _, part = resource.partition("/")
    yield from (("namespace", namespace), ("verb", verb), ("group", group), ("resource", kind))
    if part:
        yield "subresource", part
