"""From (request, findings) to a :class:`Plan`, or to the reason why there is none. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.core import tuning
from orchestrator.core.base.problem import Problem
from orchestrator.core.launchers import MODULES, NEEDS_RENDEZVOUS, choose, slurm_job
from orchestrator.core.model import checks
from orchestrator.core.model.checks import Finding
from orchestrator.core.model.comm_modes import APART, Fall, Ground, Rung, ladder, used
from orchestrator.core.model.facts import Facts, Gpu
from orchestrator.core.model.inventory import NodeSpec, PythonKind
from orchestrator.core.model.plan import Exclusion, NodePlan, Plan, Rendezvous
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.workload import Shape
from orchestrator.core.planning.placing import (
    Place,
    World,
    addresses_of,
    node_plan,
    place_nodes,
    same_machine,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why the job cannot start."""

    problem: Problem
    excluded: tuple[Exclusion, ...]


def plan(
    request: RunRequest,
    findings: Mapping[str, Finding],
    failed: Mapping[str, str],
    rendezvous: Rendezvous | None = None,
    falls: Sequence[Fall] = (),
) -> Plan | Refusal:
    """What will run, given what is known of each worker.

    ``failed`` maps workers that could not be reached or prepared to the reason. A node is left
    out only if the inventory's ``min_nodes`` allows it; otherwise the answer is a Refusal. So it is
    when ``falls`` leave no rung of the ladder.
    """
    nodes, excluded = _select(request, findings, failed)
    refusal = _refuse(request, nodes, excluded)
    if refusal is not None:
        return refusal
    findings = {spec.name: findings[spec.name] for spec in nodes}
    launcher, reason = choose(
        request.launcher,
        program=request.job.workload.program,
        has_torch=_has_torch(findings.values()),
        divisible=request.job.workload.shape is Shape.DIVISIBLE,
        options=request.launcher_options,
    )
    places = place_nodes(request, nodes, findings)
    rungs = ladder(_ground(request, findings, places, launcher), falls)
    rung = used(rungs)
    if rung is None:
        return _no_rung(falls, excluded)
    world = World(
        request=request,
        findings=findings,
        places=places,
        launcher=launcher,
        rung=rung,
        rendezvous=rendezvous,
    )
    shares = tuple(node_plan(world, place) for place in world.places)
    return Plan(
        run_id=request.run_id,
        cluster=request.cluster.name,
        workload=request.job.workload.name,
        preset=request.job.preset,
        launcher=launcher,
        launcher_reason=reason,
        world_size=world.size,
        nodes=shares,
        excluded=excluded,
        ladder=rungs,
        rung=rung.value,
        meets=world.meets,
        apart=rung in APART,
        proves_fabric=_proves_fabric(world),
        warnings=(*checks.warnings(world.findings), *_habits(world, shares)),
        budgets=request.budgets,
        code=request.code,
        rendezvous=rendezvous,
        assumed=world.assumed,
    )


def _habits(world: World, shares: Sequence[NodePlan]) -> Iterator[str]:
    facts = {name: finding.facts for name, finding in world.findings.items()}
    return tuning.warnings(shares, facts, world.request.job.workload.modules)


def join(planned: Plan, request: RunRequest, findings: Mapping[str, Finding]) -> Plan:
    """``planned`` with the nodes that are ready only now, where nodes do not need each other.

    Those that work already keep their ranks; the new ones count on.
    """
    known = [request.cluster.node(share.name) for share in planned.nodes]
    new = [
        spec
        for spec in request.cluster.workers
        if spec not in known
        and spec.name in findings
        and checks.unfit(spec, findings[spec.name], _modules(request)) is None
    ]
    nodes = [*known, *new]
    world = World(
        request=request,
        findings={spec.name: findings[spec.name] for spec in nodes},
        places=place_nodes(request, nodes, findings),
        launcher=planned.launcher,
        rung=Rung(planned.rung),
        rendezvous=None,
    )
    joined = tuple(node_plan(world, place) for place in world.places[len(known) :])
    names = {share.name for share in joined}
    return replace(
        planned,
        world_size=planned.world_size + sum(len(share.ranks) for share in joined),
        nodes=(*planned.nodes, *joined),
        excluded=tuple(e for e in planned.excluded if e.node not in names),
    )


def assume(spec: NodeSpec) -> Finding:
    """What a plan assumes of a node that cannot be asked: exactly what the inventory declares."""
    indices = spec.gpus.indices or tuple(range(spec.gpus.count or 0))
    gpus = tuple(Gpu(index=index, name=spec.gpus.type or "unknown GPU") for index in indices)
    facts = Facts(node=spec.name, hostname=spec.ssh.host, cpus=0, gpus=gpus, assumed=True)
    return Finding(facts=facts, interpreter=declared_interpreter(spec), modules=None)


def declared_interpreter(spec: NodeSpec) -> str:
    """The ranks' interpreter as far as the inventory alone tells."""
    match spec.python.kind:
        case PythonKind.INTERPRETER:
            return spec.python.value
        case PythonKind.VENV:
            return f"{spec.python.value.rstrip('/')}/bin/python"
        case PythonKind.CONDA:
            return f"<conda environment {spec.python.value}>/bin/python"
        case PythonKind.REQUIREMENTS | PythonKind.WORKLOAD:
            return "<environment built from requirements>/bin/python"


def rendezvous_candidates(facts: Facts, *, alone: bool) -> tuple[str, ...]:
    """The head's addresses to try, best first: the one that SSH came in by, then its other
    interfaces.

    ``alone``: every node is this machine, so the loopback address does.
    """
    if alone:
        return ("127.0.0.1",)
    return addresses_of(facts) or ("127.0.0.1",)


def _modules(request: RunRequest) -> tuple[str, ...]:
    """What ranks are to import: for the workload, and for the launcher that was asked for."""
    return (*request.job.workload.modules, *MODULES.get(request.launcher, ()))


def _has_torch(findings: Iterable[Finding]) -> bool | None:
    """Whether every interpreter has torch; None when one was not asked."""
    known = [finding.modules for finding in findings]
    if any(modules is None for modules in known):
        return None
    return all("torch" in (modules or {}) for modules in known)


def _select(
    request: RunRequest, findings: Mapping[str, Finding], failed: Mapping[str, str]
) -> tuple[list[NodeSpec], tuple[Exclusion, ...]]:
    used: list[NodeSpec] = []
    excluded: list[Exclusion] = []
    for spec in request.cluster.workers:
        reason = failed.get(spec.name)
        if reason is None and spec.name in findings:
            finding = findings[spec.name]
            reason = checks.unfit(spec, finding, _modules(request))
            reason = reason or slurm_job.taken(finding, [findings[s.name] for s in used])
        if reason is None:
            used.append(spec)
        else:
            excluded.append(Exclusion(node=spec.name, reason=reason))
    return used, tuple(excluded)


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
        remedy = (
            f"repair it, or leave it out with --nodes '!{first.node}', or set min_nodes "
            "in the inventory so that bad nodes are left out"
        )
    else:
        message = f"{workload.name} needs {needed} nodes, the selection has {len(used)}"
        remedy = "select more nodes"
    problem = Problem(id="OR-PLAN-001", message=message, remedy=remedy)
    return Refusal(problem=problem, excluded=excluded)


def _proves_fabric(world: World) -> bool:
    """Whether ranks of different machines are to meet through torch: nothing else is worth it.

    Nodes that are different machines to NCCL by its own variable do not share its fast paths
    either. Nodes that Slurm is yet to give are not ours to try.
    """
    identities = {str(place.spec.env.get("NCCL_HOSTID", "")) for place in world.places}
    distinct = len(identities) == len(world.places)
    together = same_machine(list(world.findings.values())) and not distinct
    has_torch = _has_torch(world.findings.values()) is True
    asked = world.request.fabric_probe and not world.request.job.workload.program
    return (
        world.meets
        and len(world.places) > 1
        and not together
        and has_torch
        and asked
        and slurm_job.holds_nodes(world.request, world.launcher)
    )


def _ground(
    request: RunRequest,
    findings: Mapping[str, Finding],
    places: Sequence[Place],
    launcher: str,
) -> Ground:
    facts = [finding.facts for finding in findings.values()]
    return Ground(
        shape=request.job.workload.shape,
        communicates=launcher in NEEDS_RENDEZVOUS,
        nodes=len(places),
        gpus_everywhere=all(place.gpus for place in places),
        ib_ports=sum(len(f.hcas) for f in facts),
        assumed=any(f.assumed for f in facts),
    )


def _no_rung(falls: Sequence[Fall], excluded: tuple[Exclusion, ...]) -> Refusal:
    """Rigid work that cannot communicate ends here, with what was found."""
    last = falls[-1]
    remedy = last.remedy or "repair the network between them, or leave nodes out: --nodes '!NAME'"
    problem = Problem(id=last.id, message=last.reason, remedy=remedy)
    return Refusal(problem=problem, excluded=excluded)
