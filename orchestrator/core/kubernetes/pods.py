"""A job's nodes as pods: what each of them is, and the plan for them. Pure.

A pod is planned as the node that it stands for, with three differences: its interpreter is the
image's, its GPUs are numbered from 0, and where ranks meet is a name that Kubernetes gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from orchestrator.core.base.problem import Problem
from orchestrator.core.kubernetes.settings import MAX_HOST_CHARACTERS, POD_SUFFIX, PodSettings
from orchestrator.core.launchers import LAUNCHERS, Launcher, known_launcher
from orchestrator.core.model import devices
from orchestrator.core.model.checks import NodeFinding
from orchestrator.core.model.facts import Facts, Gpu
from orchestrator.core.model.inventory import GpuSpec, NodeSpec, PythonSpec
from orchestrator.core.model.plan import NodePlan, Plan, Rendezvous
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.workload import Shape
from orchestrator.core.planning.planning import Refusal, assumed_finding, make_plan

# What a pod puts in the place of these, as it learns it: node_agent/kubernetes/pod_network.py.
LEADER, INTERFACE = "{leader}", "{interface}"
LOOPBACK = "127.0.0.1"
FIRST_GROUP = "nodes"


@dataclass(frozen=True, slots=True, kw_only=True)
class PodGroup:
    """Pods of one template: consecutive nodes that differ in nothing but their rank."""

    name: str
    shares: tuple[NodePlan, ...]

    @property
    def first(self) -> int:
        """The node rank of its first pod."""
        return self.shares[0].node_rank


def find_obstacle(request: RunRequest, settings: PodSettings, *, probing: bool) -> Problem | None:
    """Why pods cannot do this work, or None. ``probing``: nodes will be asked for their GPUs."""
    return next(_obstacles(request, settings, probing), None)


def _obstacles(request: RunRequest, settings: PodSettings, probing: bool) -> Iterator[Problem]:
    yield from _impossible_work(request)
    for spec in request.cluster.workers:
        if devices.choice(spec.env, request.env) is not None:
            message = f"{spec.name}: {devices.VARIABLE} names GPUs of a machine, not those of a pod"
            remedy = "leave it out, and say how many GPUs with gpus: N in the inventory"
            yield Problem(id="export.gpus", message=message, remedy=remedy)
        if devices.is_undeclared(spec) and not probing:
            message = f"{spec.name}: the inventory does not say how many GPUs it has"
            remedy = "gpus: N there, 0 for none; or --probe, which asks the node over SSH"
            yield Problem(id="export.gpus", message=message, remedy=remedy)
    if settings.serves is not None:
        yield from _unserved(request, settings.serves)


def _impossible_work(request: RunRequest) -> Iterator[Problem]:
    launcher = known_launcher(request.launcher)
    if launcher is not None and (launcher.scheduler or launcher.knows_addresses):
        names = ", ".join(name for name, kind in LAUNCHERS.items() if _starts_in_pods(kind))
        message = f"--launcher {launcher.name} needs the addresses of nodes, and pods have none yet"
        yield Problem(id="export.launcher", message=message, remedy=f"one of {names}")
    if request.job.workload.shape is Shape.DIVISIBLE:
        message = f"{request.job.workload.name} divides samples, which only a coordinator can lease"
        remedy = "orchestrate run with this inventory, over SSH"
        yield Problem(id="export.samples", message=message, remedy=remedy)


def _starts_in_pods(launcher: Launcher) -> bool:
    asks = launcher.scheduler is not None or launcher.knows_addresses
    return not (asks or launcher.makes_nodes)


def _unserved(request: RunRequest, port: int) -> Iterator[Problem]:
    """Parameters by which a server would not be found at the pod's port."""
    values = request.job.values
    wrong = [
        f"--set {name}={wanted}"
        for name, wanted in (("host", "0.0.0.0"), ("port", port))  # noqa: S104 - a pod's own
        if name in values and values[name] != wanted
    ]
    if wrong:
        message = f"the server would not listen on port {port} of the pod's address"
        yield Problem(id="export.serving", message=message, remedy=" ".join(wrong))


def as_pods(request: RunRequest, settings: PodSettings, found: Mapping[str, Facts]) -> RunRequest:
    """The same work for pods. ``find_obstacle`` found none."""

    def pod(spec: NodeSpec) -> NodeSpec:
        gpus = GpuSpec(count=_gpu_count(spec, found.get(spec.name)), type=spec.gpus.type)
        return replace(spec, gpus=gpus, python=PythonSpec(value=settings.python))

    workers = tuple(map(pod, request.cluster.workers))
    cluster = replace(request.cluster, nodes=workers)
    return replace(request, run_id=settings.name, cluster=cluster, token="")


def _gpu_count(spec: NodeSpec, facts: Facts | None) -> int:
    if facts is not None:
        return len(devices.gpus_of(spec, facts, None))
    return len(spec.gpus.indices) if spec.gpus.indices is not None else spec.gpus.count or 0


def plan_pods(
    pods: RunRequest,
    settings: PodSettings,
    found: Mapping[str, Facts],
    failed: Mapping[str, str],
) -> Plan | Refusal:
    """What pods will run. ``failed``: nodes that were asked and cannot take part, and why."""
    findings = {
        spec.name: _finding(spec, settings, found.get(spec.name))
        for spec in pods.cluster.workers
        if spec.name not in failed
    }
    plan = make_plan(pods, findings, failed)
    if isinstance(plan, Refusal) or not plan.meets:
        return plan
    return make_plan(pods, findings, failed, _rendezvous(plan, settings))


def _finding(spec: NodeSpec, settings: PodSettings, facts: Facts | None) -> NodeFinding:
    """What is known of a pod: as the inventory says, or as its node was found to be."""
    assumed = assumed_finding(spec)
    if facts is None:
        return replace(assumed, facts=replace(assumed.facts, cpus=settings.cpus))
    # Each pod is a machine of its own, be it on the same node as another one.
    cpus = settings.cpus or facts.cpus
    own = replace(facts, host_id="", gpus=_pod_gpus(spec, facts), cpus=cpus)
    return replace(assumed, facts=own)


def _pod_gpus(spec: NodeSpec, facts: Facts) -> tuple[Gpu, ...]:
    """All of the node's, or so many of them; of which it is not known what they are near to."""
    count = spec.gpus.count or 0
    if count == len(facts.gpus):
        return tuple(replace(gpu, index=index) for index, gpu in enumerate(facts.gpus))
    some = enumerate(facts.gpus[:count])
    return tuple(replace(gpu, index=i, numa_node=None, cpus="", pci="") for i, gpu in some)


def _rendezvous(plan: Plan, settings: PodSettings) -> Rendezvous:
    if len(plan.nodes) == 1:
        address = LOOPBACK
    elif settings.serves is not None:
        address = LEADER
    else:
        address = f"{settings.name}-{FIRST_GROUP}-0-0.{settings.name}"
    interfaces = tuple((share.name, INTERFACE) for share in plan.nodes)
    return Rendezvous(address=address, port=settings.port, interfaces=interfaces)


def group_pods(plan: Plan) -> tuple[PodGroup, ...]:
    """The pods by template, in rank order."""
    alike = [tuple(shares) for _, shares in groupby(plan.nodes, key=_template_key)]
    return tuple(
        PodGroup(name=f"{FIRST_GROUP}-{number}" if number > 1 else FIRST_GROUP, shares=shares)
        for number, shares in enumerate(alike, start=1)
    )


def _template_key(share: NodePlan) -> tuple[object, ...]:
    return (len(share.gpus), tuple((variable.name, variable.value) for variable in share.env))


def find_misfit(groups: tuple[PodGroup, ...], settings: PodSettings) -> Problem | None:
    """Why the pods cannot become the objects that are to hold them, or None."""
    last = groups[-1]
    longest = f"{settings.name}-{last.name}-0-{len(last.shares) - 1}{POD_SUFFIX}"
    if len(longest) > MAX_HOST_CHARACTERS:
        message = f"{settings.name} is {len(longest) - MAX_HOST_CHARACTERS} characters too long"
        return Problem(id="export.name", message=message, remedy="a shorter --name")
    alike = len(groups) == 1 or (len(groups) == 2 and len(groups[0].shares) == 1)
    if settings.serves is None or alike:
        return None
    message = "all pods of a LeaderWorkerSet but the first have one template; these nodes differ"
    remedy = "select equal ones with --nodes, or declare them alike in the inventory"
    return Problem(id="export.serving", message=message, remedy=remedy)
