"""The template of a group of pods: the container that runs a node's share, and its environment."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from orchestrator.core.base.command import Secret
from orchestrator.core.kubernetes.pods import PodGroup
from orchestrator.core.kubernetes.settings import CodePlace, PodSettings
from orchestrator.core.kubernetes.yaml_text import Noted
from orchestrator.core.model.comm_modes import CommMode
from orchestrator.core.model.plan import NodePlan, Plan, Variable

CONTAINER = "ranks"
PLAN_DIR, CODE_DIR, WORK_DIR = "/orchestrate/plan", "/orchestrate/code", "/orchestrate/work"
GPU_RESOURCE = "nvidia.com/gpu"
# After the grace of the ranks the supervisor looks for what they left, and the pod says how it was.
SWEEP_S = 30
START = (
    'import sys;sys.path.insert(0,sys.argv[1]+"/agent.zip");'
    "from orchestrator.node_agent.kubernetes.pod_start import main;main()"
)
# A folder of code for each digest: what an image or a claim holds of earlier code stays apart.
DIGEST_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class _Volume:
    """``source`` as a pod declares it, without its name; ``mount`` likewise."""

    name: str
    source: Mapping[str, object]
    mount: Mapping[str, object]


def secrets_name(settings: PodSettings) -> str:
    """The Secret from which pods take the variables that no manifest may show."""
    return f"{settings.name}-secrets"


def code_dir(plan: Plan) -> str:
    """Where a pod finds the code of ``plan``."""
    return f"{CODE_DIR}/{plan.code[:DIGEST_CHARACTERS]}"


def pod_template(
    plan: Plan, group: PodGroup, settings: PodSettings, labels: Mapping[str, str]
) -> dict[str, object]:
    """A ``PodTemplateSpec``, but for the restart policy, which depends on what holds it."""
    volumes = list(_volumes(plan, settings))
    spec: dict[str, object] = {
        "terminationGracePeriodSeconds": Noted(
            math.ceil(plan.budgets.grace_s) + SWEEP_S,
            (f"the grace of the ranks, {plan.budgets.grace_s:g} s, and time to find leftovers",),
        ),
        **network_fields(settings),
        **placing_fields(settings),
        "containers": [_container(plan, group, settings, volumes)],
        "volumes": [{"name": volume.name, **volume.source} for volume in volumes],
    }
    return {"metadata": {"labels": dict(labels)}, "spec": spec}


def placing_fields(settings: PodSettings) -> dict[str, object]:
    """What a pod says of the machines that it may run on, and of who may pull its image."""
    tolerations = [
        {
            "key": each.key,
            **({"operator": "Exists"} if each.value is None else {"value": each.value}),
            **({"effect": each.effect} if each.effect else {}),
        }
        for each in settings.tolerations
    ]
    return {
        **({"nodeSelector": dict(settings.node_selector)} if settings.node_selector else {}),
        **({"tolerations": tolerations} if tolerations else {}),
        **({"imagePullSecrets": [{"name": settings.pull_secret}]} if settings.pull_secret else {}),
    }


def network_fields(settings: PodSettings) -> dict[str, object]:
    """What a pod says of its network."""
    if not settings.host_network:
        return {}
    # Without this policy a pod in the host's network does not know the names of other pods.
    return {"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"}


def _container(
    plan: Plan, group: PodGroup, settings: PodSettings, volumes: list[_Volume]
) -> dict[str, object]:
    start = [settings.python, "-I", "-S", "-c", START, PLAN_DIR, code_dir(plan), WORK_DIR]
    # A LeaderWorkerSet counts all pods of a group, a replicated job its own.
    first = group.first if settings.serves is None else 0
    count = len(group.shares[0].gpus)
    limits = {**({GPU_RESOURCE: str(count)} if count else {}), **settings.resources}
    return {
        "name": CONTAINER,
        "image": settings.image,
        "command": [*start, str(first)],
        "env": list(_environment(group.shares[0], settings)),
        **({"resources": {"limits": limits}} if limits else {}),
        **_serving(settings),
        **_security(plan),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": volume.name, **volume.mount} for volume in volumes],
    }


def _serving(settings: PodSettings) -> dict[str, object]:
    if settings.serves is None:
        return {}
    probe = {"tcpSocket": {"port": settings.serves}, "periodSeconds": 5}
    port = {"containerPort": settings.serves, "protocol": "TCP"}
    return {"ports": [port], "readinessProbe": probe}


def _security(plan: Plan) -> dict[str, object]:
    if plan.rung != CommMode.NCCL_IB:
        return {}
    capabilities = Noted({"add": ["IPC_LOCK"]}, ("InfiniBand pins memory",))
    return {"securityContext": {"capabilities": capabilities}}


def _environment(share: NodePlan, settings: PodSettings) -> Iterator[Noted]:
    """Every variable with its reason; behind the last one, what was left alone."""
    if not share.env:
        return
    *others, last = share.env
    for variable in others:
        yield Noted(_variable(variable, settings), (_reason(variable),))
    left = (f"{variable.name} is left alone: {_reason(variable)}" for variable in share.left)
    yield Noted(_variable(last, settings), (*left, _reason(last)))


def _variable(variable: Variable, settings: PodSettings) -> dict[str, object]:
    if isinstance(variable.value, Secret):
        key = {"name": secrets_name(settings), "key": variable.name}
        return {"name": variable.name, "valueFrom": {"secretKeyRef": key}}
    # Kubernetes replaces $(NAME), and reads $$ as $.
    return {"name": variable.name, "value": variable.value.replace("$", "$$")}


def _reason(variable: Variable) -> str:
    evidence = f" ({variable.evidence})" if variable.evidence else ""
    rule = f" [{variable.rule}]" if variable.rule else ""
    return f"{variable.origin}: {variable.reason}{evidence}{rule}"


def _volumes(plan: Plan, settings: PodSettings) -> Iterator[_Volume]:
    planned = {"configMap": {"name": f"{settings.name}-plan"}}
    yield _Volume("plan", planned, {"mountPath": PLAN_DIR, "readOnly": True})
    match settings.code:
        case CodePlace.CONFIGMAP:
            code = {"configMap": {"name": f"{settings.name}-code"}}
            yield _Volume("code", code, {"mountPath": code_dir(plan), "readOnly": True})
        case CodePlace.CLAIM:
            claim = {"persistentVolumeClaim": {"claimName": settings.claim, "readOnly": True}}
            yield _Volume("code", claim, {"mountPath": CODE_DIR, "readOnly": True})
        case CodePlace.IMAGE:
            pass
    if settings.results:
        kept = {"persistentVolumeClaim": {"claimName": settings.results}}
        yield _Volume("work", kept, {"mountPath": WORK_DIR, "subPath": settings.name})
    else:
        yield _Volume("work", {"emptyDir": {}}, {"mountPath": WORK_DIR})
    # The 64 MiB that a container has by default do not last for NCCL and for data loaders.
    yield _Volume("shm", {"emptyDir": {"medium": "Memory"}}, {"mountPath": "/dev/shm"})  # noqa: S108
