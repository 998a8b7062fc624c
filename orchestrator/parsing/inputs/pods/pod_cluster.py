"""``--launcher kubernetes``: the inventory's nodes as pods, from what was given of its options."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.core.base.errors import UsageError
from orchestrator.core.kubernetes.run_pods import DEFAULT_IDLE_S, RunPods, job_name, pod_nodes
from orchestrator.core.kubernetes.settings import PodSettings
from orchestrator.core.launchers.kubernetes import IMAGE, pod_words
from orchestrator.core.model import devices
from orchestrator.core.model.inventory import Cluster, NodeSpec
from orchestrator.core.model.request import RunRequest
from orchestrator.parsing.inputs.pods import pod_options

MIN_IDLE_S, MAX_IDLE_S = 60.0, 31 * 86_400.0
NETWORKS = ("pod", "host")
# What a kubeconfig calls its contexts is free, within these bounds.
MAX_CONTEXT = 253


def podded_cluster(cluster: Cluster, options: Sequence[str], run_id: str) -> Cluster:
    """The cluster with a pod in the place of each node. Raises :class:`UsageError`."""
    pods = read_pods(options, run_id)
    for spec in cluster.workers:
        _require_fit(cluster, spec)
    return replace(cluster, nodes=pod_nodes(cluster.workers, pods))


def pods_of(request: RunRequest) -> RunPods:
    """How the pods of a run are made that was accepted before. Raises :class:`UsageError`."""
    return read_pods(request.launcher_options, request.run_id)


def read_pods(options: Sequence[str], run_id: str) -> RunPods:
    """Raises :class:`UsageError`."""

    def given(key: str, otherwise: str = "") -> str:
        return next(iter(pod_words(options, key)), otherwise)

    if not given(IMAGE):
        what, remedy = "--launcher kubernetes needs an image", "--pod-image registry/name:tag"
        raise UsageError(what, id="run.pod-image", remedy=remedy)
    settings = PodSettings(
        name=job_name(run_id),
        image=pod_options.parse_image(given(IMAGE), "--pod-image"),
        python=given("python", "python3"),
        namespace=pod_options.parse_object_name("--pod-namespace", given("namespace")),
        resources=pod_options.parse_resources(pod_words(options, "resource"), "--pod-resource"),
        node_selector=pod_options.parse_labels("--pod-selector", pod_words(options, "selector")),
        tolerations=pod_options.parse_tolerations(
            "--pod-toleration", pod_words(options, "toleration")
        ),
        pull_secret=pod_options.parse_object_name("--pod-pull-secret", given("pull-secret")),
        results=pod_options.parse_object_name("--pod-claim", given("claim")),
        queue=pod_options.parse_object_name("--pod-queue", given("queue")),
        host_network=_choose_network(given("network", NETWORKS[0])) == "host",
    )
    context = _parse_context(given("context"))
    return RunPods(settings=settings, context=context, idle_s=_parse_idle(given("idle")))


def _require_fit(cluster: Cluster, spec: NodeSpec) -> None:
    """What the inventory says of a machine and no pod can follow."""
    where = cluster.source
    if devices.choice(spec.env, {}) is not None:
        what = f"{spec.name}: {devices.VARIABLE} names GPUs of a machine, not those of a pod"
        remedy = "leave it out, and say how many GPUs with gpus: N in the inventory"
        raise UsageError(what, id="run.pod-gpus", where=where, remedy=remedy)
    if devices.is_undeclared(spec):
        what = f"{spec.name}: the inventory does not say how many GPUs its pod is to have"
        raise UsageError(what, id="run.pod-gpus", where=where, remedy="gpus: N, 0 for none")
    if spec.container is not None:
        what = f"{spec.name}: a pod is a container already, and runs none in it"
        remedy = "--container none; --pod-image says what pods run"
        raise UsageError(what, id="run.pod-container", where=where, remedy=remedy)


def _choose_network(text: str) -> str:
    if text not in NETWORKS:
        what = f"--pod-network {text[:80]!r} is neither pod nor host"
        raise UsageError(what, id="run.pod-network", remedy="--pod-network host, or leave it out")
    return text


def _parse_context(text: str) -> str:
    if text and (len(text) > MAX_CONTEXT or not text.isprintable() or text.startswith("-")):
        remedy = "kubectl config get-contexts lists them"
        raise UsageError("no name of a context", id="run.pod-context", why=text[:80], remedy=remedy)
    return text


def _parse_idle(text: str) -> float:
    if not text:
        return DEFAULT_IDLE_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not MIN_IDLE_S <= seconds <= MAX_IDLE_S:
        what = f"--pod-idle: expected seconds, {MIN_IDLE_S:g} to {MAX_IDLE_S:.0f}"
        raise UsageError(what, id="run.pod-idle", why=f"found {text[:80]!r}")
    return seconds
