"""From a node that is a pod to a transport: which pod that is now, and whether it still runs."""

from __future__ import annotations

from orchestrator.adapters.kubernetes.kubectl import ask_kubectl, invalid_reply
from orchestrator.adapters.transport.kubernetes.pod_transport import PodTransport
from orchestrator.adapters.transport.ssh.failures import Refused
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.base.errors import PreflightError, UsageError
from orchestrator.core.kubernetes.pod_health import describe_silence, judge_pod
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.parsing.replies.kubernetes_objects import parse_pods
from orchestrator.parsing.replies.supervisor_records import BadRecord


async def open_pod(spec: NodeSpec, limits: ConnectLimits) -> PodTransport:
    """Raises ``PreflightError``: ``Refused`` when the pod is gone or over, which no waiting cures;
    and ``UsageError`` for a node that nobody made a pod for.
    """
    place = spec.pod
    if place is None:
        what = f"{spec.name}: pods are made by --launcher kubernetes, not declared"
        raise UsageError(what, id="cluster.transport", remedy="leave the transport out")
    timeout_s = limits.connect_timeout_s
    data = await ask_kubectl(
        place, "get", "pods", "--selector", place.selector, "-o", "json", timeout_s=timeout_s
    )
    try:
        pods = parse_pods(data)
    except BadRecord as error:
        raise invalid_reply(error, spec.name) from error
    alive = [pod for pod in pods if not pod.over]
    pod = next(iter(alive or pods), None)
    if problem := judge_pod(pod, place):
        raise Refused(problem.message, id=problem.id, where=spec.name, remedy=problem.remedy)
    assert pod is not None, "judge_pod has a problem with none"
    if pod.silent or not pod.running:
        raise PreflightError(
            "its pod cannot be reached",
            id="OR-KUBE-011",
            where=spec.name,
            why=describe_silence(pod),
            remedy=place.command("describe", "pod", pod.name),
        )
    return PodTransport(spec.name, place, pod.name, limits)
