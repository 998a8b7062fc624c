"""From (request, findings) to a :class:`Plan`, or to the reason why there is none. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.core import launchers, tuning
from orchestrator.core.base.problem import Problem
from orchestrator.core.containers.containing import container_interpreter, different_images
from orchestrator.core.launchers import LAUNCHERS, Launcher, choose_launcher, typed
from orchestrator.core.model import checks, devices
from orchestrator.core.model.checks import NodeFinding
from orchestrator.core.model.comm_modes import (
    APART,
    CommMode,
    Fallback,
    JobNeeds,
    fallback_chain,
    mode_in_use,
)
from orchestrator.core.model.facts import Facts, Gpu
from orchestrator.core.model.inventory import NodeSpec, PythonKind
from orchestrator.core.model.plan import Exclusion, NodePlan, Plan, PlannedMode, Rendezvous
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.workload import Per
from orchestrator.core.planning.placing import (
    PlannedWorld,
    RankPlacement,
    addresses_of,
    place_nodes,
    plan_nodes,
    same_machine,
)

DECLARE_GPUS = "say in the inventory what it has, such as gpus: 0 for none"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the job cannot start."""

    problem: Problem
    excluded: tuple[Exclusion, ...]


def make_plan(
    request: RunRequest,
    findings: Mapping[str, NodeFinding],
    failed: Mapping[str, str],
    rendezvous: Rendezvous | None = None,
    falls: Sequence[Fallback] = (),
) -> Plan | Refusal:
    """What will run, given what is known of each worker.

    ``failed`` maps workers that could not be reached or prepared to the reason. A node is left
    out only if the inventory's ``min_nodes`` allows it; otherwise the answer is a Refusal. So it is
    when ``falls`` leave no rung of the ladder.
    """
    nodes, excluded = _select_nodes(request, findings, failed)
    refusal = _refuse(request, nodes, excluded)
    if refusal is not None:
        return refusal
    used = {spec.name: findings[spec.name] for spec in nodes}
    layout = _lay_out(request, nodes, used, excluded=excluded, rendezvous=rendezvous, falls=falls)
    return layout if isinstance(layout, Refusal) else _plan_of(layout, excluded)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    """Where the ranks go, how they communicate, and why this launcher starts them."""

    world: PlannedWorld
    ladder: tuple[PlannedMode, ...]
    launcher_reason: str


def _lay_out(
    request: RunRequest,
    nodes: Sequence[NodeSpec],
    findings: Mapping[str, NodeFinding],
    *,
    excluded: tuple[Exclusion, ...],
    rendezvous: Rendezvous | None,
    falls: Sequence[Fallback],
) -> _Layout | Refusal:
    launcher, _ = _choose_launcher(request, findings)
    refusal = _refuse_containers(nodes, findings, LAUNCHERS[launcher], excluded)
    if refusal is not None:
        return refusal
    places = place_nodes(request, nodes, findings)
    ladder = fallback_chain(_ground(request, findings, places, launcher), falls)
    rung = mode_in_use(ladder)
    if rung is None:
        return _no_rung(falls, excluded)
    launcher, reason = _choose_launcher(request, findings, rung)
    world = PlannedWorld(
        request=request,
        findings=findings,
        places=places,
        launcher=launcher,
        rung=rung,
        rendezvous=rendezvous,
    )
    return _Layout(world=world, ladder=ladder, launcher_reason=reason)


def _plan_of(layout: _Layout, excluded: tuple[Exclusion, ...]) -> Plan:
    world = layout.world
    request = world.request
    shares = plan_nodes(world, world.places)
    return Plan(
        run_id=request.run_id,
        cluster=request.cluster.name,
        workload=request.job.workload.name,
        preset=request.job.preset,
        launcher=world.launcher,
        launcher_reason=layout.launcher_reason,
        world_size=world.roster.size,
        nodes=shares,
        excluded=excluded,
        ladder=layout.ladder,
        rung=world.rung.value,
        meets=world.meets,
        apart=world.rung in APART,
        proves_fabric=_proves_fabric(world),
        warnings=(*checks.finding_warnings(world.findings), *_habit_texts(world, shares)),
        budgets=request.budgets,
        code=request.code,
        rendezvous=world.rendezvous,
        assumed=world.assumed,
    )


def _choose_launcher(
    request: RunRequest, findings: Mapping[str, NodeFinding], rung: CommMode | None = None
) -> tuple[str, str]:
    """(launcher, why). Whether ranks meet does not depend on the ``rung``, which needs that."""
    return choose_launcher(
        request.launcher,
        for_scripts=request.script_launcher,
        program=request.job.workload.program,
        has_torch=_has_torch(findings.values()),
        shape=request.job.workload.shape,
        options=request.launcher_options,
        variables=(*request.env, *(v for spec in request.cluster.workers for v in spec.env)),
        own_worlds=rung is CommMode.LOCAL_ROUNDS,
    )


def _habit_texts(world: PlannedWorld, shares: Sequence[NodePlan]) -> Iterator[str]:
    yield from typed.typed_warnings(world.request.job.workload.program)
    yield from world.request.job.workload.warnings
    nodes = [(p.spec, world.findings[p.spec.name].facts, p.gpus) for p in world.places]
    yield from devices.device_warnings(nodes, world.request.env)
    facts = {name: finding.facts for name, finding in world.findings.items()}
    yield from tuning.habit_warnings(shares, facts, world.request.job.workload.modules)


def plan_with_joined(
    planned: Plan, request: RunRequest, findings: Mapping[str, NodeFinding]
) -> Plan:
    """``planned`` with the nodes that are ready only now, where nodes do not need each other.

    Those that work already keep their ranks; the new ones count on.
    """
    specs = {spec.name: spec for spec in request.cluster.workers}
    known = [specs.pop(share.name) for share in planned.nodes]
    others = _neighbours(request, findings)
    new = [
        spec
        for name, spec in specs.items()
        if name in findings and _exclusion_of(request, spec, findings[name], others, []) is None
    ]
    nodes = [*known, *new]
    world = PlannedWorld(
        request=request,
        findings={spec.name: findings[spec.name] for spec in nodes},
        places=place_nodes(request, nodes, findings),
        launcher=planned.launcher,
        rung=CommMode(planned.rung),
        rendezvous=None,
    )
    joined = plan_nodes(world, world.places[len(known) :])
    names = {share.name for share in joined}
    return replace(
        planned,
        world_size=planned.world_size + sum(len(share.ranks) for share in joined),
        nodes=(*planned.nodes, *joined),
        excluded=tuple(e for e in planned.excluded if e.node not in names),
    )


def assumed_finding(spec: NodeSpec) -> NodeFinding:
    """What a plan assumes of a node that cannot be asked: exactly what the inventory declares."""
    indices = spec.gpus.indices or tuple(range(spec.gpus.count or 0))
    gpus = tuple(Gpu(index=index, name=spec.gpus.type or "unknown GPU") for index in indices)
    facts = Facts(node=spec.name, hostname=spec.ssh.host, cpus=0, gpus=gpus, assumed=True)
    return NodeFinding(
        facts=facts,
        interpreter=declared_interpreter(spec),
        modules=None,
        environment=declared_environment(spec),
    )


def declared_interpreter(spec: NodeSpec) -> str:
    """The ranks' interpreter as far as the inventory alone tells."""
    if spec.container is not None:
        return container_interpreter(spec)
    match spec.python.kind:
        case PythonKind.INTERPRETER:
            return spec.python.value
        case PythonKind.VENV:
            return f"{spec.python.value.rstrip('/')}/bin/python"
        case PythonKind.CONDA:
            return f"<conda environment {spec.python.value}>/bin/python"
        case PythonKind.REQUIREMENTS | PythonKind.WORKLOAD:
            return "<environment built from requirements>/bin/python"


def declared_environment(spec: NodeSpec) -> dict[str, str]:
    """What puts the ranks' environment in force, as far as the inventory alone tells."""
    if spec.container is not None or spec.python.kind is PythonKind.INTERPRETER:
        return {}
    prefix = declared_interpreter(spec).removesuffix("/bin/python")
    name = "CONDA_PREFIX" if spec.python.kind is PythonKind.CONDA else "VIRTUAL_ENV"
    return {name: prefix, "PATH": f"{prefix}/bin:<the login's PATH>"}


def rendezvous_candidates(facts: Facts, *, alone: bool) -> tuple[str, ...]:
    """The head's addresses to try, best first: the one that SSH came in by, then its other
    interfaces.

    ``alone``: every node is this machine, so the loopback address does.
    """
    if alone:
        return ("127.0.0.1",)
    return addresses_of(facts) or ("127.0.0.1",)


def _modules_needed(request: RunRequest) -> tuple[str, ...]:
    """What ranks are to import: for the workload, and for the launcher that was asked for."""
    return (*request.job.workload.modules, *launchers.needed_modules(request.launcher))


def _has_torch(findings: Iterable[NodeFinding]) -> bool | None:
    """Whether every interpreter has torch; None when one was not asked."""
    known = [finding.modules for finding in findings]
    if any(modules is None for modules in known):
        return None
    return all("torch" in (modules or {}) for modules in known)


def _select_nodes(
    request: RunRequest, findings: Mapping[str, NodeFinding], failed: Mapping[str, str]
) -> tuple[list[NodeSpec], tuple[Exclusion, ...]]:
    used: list[NodeSpec] = []
    before: list[NodeFinding] = []
    excluded: list[Exclusion] = []
    others = _neighbours(request, findings)
    for spec in request.cluster.workers:
        found = Exclusion(node=spec.name, reason=failed.get(spec.name, ""))
        if spec.name in findings and not found.reason:
            finding = findings[spec.name]
            found = _exclusion_of(request, spec, finding, others, before) or found
        if found.reason:
            excluded.append(found)
        else:
            used.append(spec)
            before.append(findings[spec.name])
    return used, tuple(excluded)


def _neighbours(request: RunRequest, findings: Mapping[str, NodeFinding]) -> devices.Neighbours:
    facts = {name: finding.facts for name, finding in findings.items()}
    return devices.neighbours(facts, request.cluster.workers)


def _exclusion_of(
    request: RunRequest,
    spec: NodeSpec,
    finding: NodeFinding,
    others: devices.Neighbours,
    before: Sequence[NodeFinding],
) -> Exclusion | None:
    """Why the node cannot take part, beside those that come ``before`` it; None = it can."""
    chosen = devices.choice(spec.env, request.env)
    wrong_gpus = devices.unfit_gpus_reason(spec, finding.facts, chosen, _fixed_ranks(request))
    wrong_gpus = wrong_gpus or devices.without_gpu(spec, finding.facts, others, chosen)
    if wrong_gpus:
        return Exclusion(node=spec.name, reason=wrong_gpus, remedy=DECLARE_GPUS)
    reason = checks.unfit_reason(spec, finding, _modules_needed(request))
    scheduler = launchers.find_scheduler(request.launcher)
    if scheduler is not None:
        reason = reason or scheduler.conflict(finding, before)
    return Exclusion(node=spec.name, reason=reason) if reason else None


def _fixed_ranks(request: RunRequest) -> int | None:
    """How many ranks each node gets whatever GPUs it has; None = one for each of them."""
    per_node = request.job.workload.ranks.per is Per.NODE
    return 1 if request.ranks_per_node is None and per_node else request.ranks_per_node


def _refuse(
    request: RunRequest, used: list[NodeSpec], excluded: tuple[Exclusion, ...]
) -> Refusal | None:
    workload = request.job.workload
    allowed = request.cluster.min_nodes or len(request.cluster.workers)
    needed = max(1, workload.min_nodes, allowed)
    if len(used) >= needed:
        return None
    if excluded:
        first = excluded[0]
        more = f" (and {len(excluded) - 1} more)" if len(excluded) > 1 else ""
        message = f"{first.node}: {first.reason}{more}"
        remedy = ", or ".join(
            [
                f"repair it, or leave it out with --nodes '!{first.node}'",
                *([first.remedy] if first.remedy else []),
                "set min_nodes in the inventory so that bad nodes are left out",
            ]
        )
    else:
        message = f"{workload.name} needs {needed} nodes, the selection has {len(used)}"
        remedy = "select more nodes"
    problem = Problem(id="OR-PLAN-001", message=message, remedy=remedy)
    return Refusal(problem=problem, excluded=excluded)


def _refuse_containers(
    nodes: Sequence[NodeSpec],
    findings: Mapping[str, NodeFinding],
    launcher: Launcher,
    excluded: tuple[Exclusion, ...],
) -> Refusal | None:
    """Why the containers of ``nodes`` cannot run this job together, if they have any."""
    contained = [spec.name for spec in nodes if spec.container is not None]
    problem = different_images([(name, findings[name].image) for name in contained])
    if contained and not launcher.containable:
        problem = Problem(
            id="OR-PLAN-002",
            message=f"the launcher {launcher.name} starts no ranks in containers",
            remedy="--launcher torchrun, or --container none",
        )
    return Refusal(problem=problem, excluded=excluded) if problem else None


def _proves_fabric(world: PlannedWorld) -> bool:
    """Whether ranks of different machines are to meet through torch: nothing else is worth it.

    Nodes that are different machines to NCCL by its own variable do not share its fast paths
    either. Nodes that a scheduler is yet to give are not ours to try.
    """
    identities = {str(place.spec.env.get("NCCL_HOSTID", "")) for place in world.places}
    distinct = len(identities) == len(world.places)
    together = same_machine(list(world.findings.values())) and not distinct
    has_torch = _has_torch(world.findings.values()) is True
    return (
        world.meets
        and len(world.places) > 1
        and not together
        and has_torch
        and world.request.fabric_probe
        and _holds_nodes(world)
    )


def _holds_nodes(world: PlannedWorld) -> bool:
    """Whether the nodes are ours before the launch."""
    scheduler = world.kind.scheduler
    return scheduler is None or scheduler.holds_nodes(world.request.launcher_options)


def _ground(
    request: RunRequest,
    findings: Mapping[str, NodeFinding],
    places: Sequence[RankPlacement],
    launcher: str,
) -> JobNeeds:
    facts = [finding.facts for finding in findings.values()]
    return JobNeeds(
        shape=request.job.workload.shape,
        communicates=LAUNCHERS[launcher].ranks_meet,
        nodes=len(places),
        lacking=tuple(place.spec.name for place in places if not place.gpus),
        ib_ports=sum(len(f.hcas) for f in facts),
        assumed=any(f.assumed for f in facts),
    )


def _no_rung(falls: Sequence[Fallback], excluded: tuple[Exclusion, ...]) -> Refusal:
    """Rigid work that cannot communicate ends here, with what was found."""
    last = falls[-1]
    remedy = last.remedy or "repair the network between them, or leave nodes out: --nodes '!NAME'"
    problem = Problem(id=last.id, message=last.reason, remedy=remedy)
    return Refusal(problem=problem, excluded=excluded)
