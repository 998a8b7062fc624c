"""From (request, findings) to a :class:`Plan`, or to the reason why there is none. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.core import checks, tuning
from orchestrator.core.checks import Finding
from orchestrator.core.command import reveal
from orchestrator.core.events import Problem
from orchestrator.core.facts import Facts, Gpu
from orchestrator.core.inventory import NodeSpec, PythonKind
from orchestrator.core.ladder import APART, Fall, Ground, Rung, ladder
from orchestrator.core.ladder import used as ladder_rung
from orchestrator.core.launchers import LAUNCHERS, NEEDS_RENDEZVOUS, Share, choose
from orchestrator.core.plan import (
    Exclusion,
    Lock,
    NodePlan,
    Plan,
    Rendezvous,
    Variable,
)
from orchestrator.core.request import RunRequest
from orchestrator.core.workload import Per, Shape, Workload

# Where the kit lies in a user's own project: nothing of the user's is called that.
PROJECT_KIT = ".orchestrate/kit"

CHOSEN_AT_LAUNCH = "<chosen at launch>"


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
    used, excluded = _select(request, findings, failed)
    refusal = _refuse(request, used, excluded)
    if refusal is not None:
        return refusal
    findings = {spec.name: findings[spec.name] for spec in used}
    launcher, reason = choose(
        request.launcher,
        program=request.job.workload.program,
        has_torch=_has_torch(findings.values()),
        divisible=request.job.workload.shape is Shape.DIVISIBLE,
    )
    places = _place(request, used, findings)
    rungs = ladder(_ground(request, findings, places, launcher), falls)
    rung = ladder_rung(rungs)
    if rung is None:
        return _no_rung(falls, excluded)
    world = _World(
        request=request,
        findings=findings,
        places=places,
        launcher=launcher,
        rung=rung,
        rendezvous=rendezvous,
    )
    return Plan(
        run_id=request.run_id,
        cluster=request.cluster.name,
        workload=request.job.workload.name,
        preset=request.job.preset,
        launcher=launcher,
        launcher_reason=reason,
        world_size=world.size,
        nodes=tuple(_node_plan(world, place) for place in world.places),
        excluded=excluded,
        ladder=rungs,
        rung=rung.value,
        meets=world.meets,
        apart=rung in APART,
        proves_fabric=_proves_fabric(world),
        warnings=tuple(checks.warnings(world.findings)),
        budgets=request.budgets,
        code=request.code,
        rendezvous=rendezvous,
        assumed=world.assumed,
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


def code_root(workload: Workload) -> str:
    """Where the code lies on a node, as a placeholder that the node resolves."""
    return "{work}" if workload.own_code else "{snapshot}"


def rendezvous_candidates(facts: Facts, *, alone: bool) -> tuple[str, ...]:
    """The head's addresses to try, best first: the one that SSH came in by, then its other
    interfaces.

    ``alone``: every node is this machine, so the loopback address does.
    """
    if alone:
        return ("127.0.0.1",)
    addresses = [facts.route_address] if facts.route_address else []
    by_speed = sorted(facts.interfaces, key=lambda interface: -interface.speed_mbit)
    for interface in by_speed:
        if interface.up and not interface.loopback:
            addresses += [a for a in interface.addresses if not a.startswith(("fe80:", "169.254."))]
    return tuple(dict.fromkeys(addresses)) or ("127.0.0.1",)


def same_machine(findings: Sequence[Finding]) -> bool:
    """Whether all nodes are one machine under several names."""
    hosts = {finding.facts.host_id for finding in findings}
    return len(hosts) == 1 and hosts != {""}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A node's place in the world."""

    spec: NodeSpec
    node_rank: int
    ranks: tuple[int, ...]
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _World:
    """All that the plan of one node may depend on."""

    request: RunRequest
    findings: Mapping[str, Finding]
    places: tuple[_Place, ...]
    launcher: str
    rung: Rung
    rendezvous: Rendezvous | None

    def interface(self, node: str) -> str | None:
        """What carries the node's connection to the rendezvous; a placeholder until that is
        known.
        """
        if self.rendezvous is not None:
            return self.rendezvous.interface_of(node)
        return CHOSEN_AT_LAUNCH if self.meets else None

    @property
    def size(self) -> int:
        return sum(len(place.ranks) for place in self.places)

    @property
    def assumed(self) -> bool:
        return any(finding.facts.assumed for finding in self.findings.values())

    @property
    def meets(self) -> bool:
        """Whether ranks of different nodes meet at a rendezvous."""
        return self.launcher in NEEDS_RENDEZVOUS and self.rung not in APART

    @property
    def own_worlds(self) -> bool:
        """Whether each node's ranks are a world of their own."""
        return self.rung is Rung.LOCAL_ROUNDS or (
            self.rung is Rung.LEASES and self.launcher in NEEDS_RENDEZVOUS
        )

    def tenants(self, node: str) -> int:
        """How many of the nodes are the same machine as ``node``."""
        host = self.findings[node].facts.host_id
        return sum(1 for f in self.findings.values() if host and f.facts.host_id == host) or 1


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
            reason = checks.unfit(spec, findings[spec.name], request.job.workload)
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


def _place(
    request: RunRequest, used: Sequence[NodeSpec], findings: Mapping[str, Finding]
) -> tuple[_Place, ...]:
    """Ranks are numbered densely in inventory order."""
    places: list[_Place] = []
    first = 0
    for node_rank, spec in enumerate(used):
        gpus = _gpus_of(spec, used, findings)
        ranks = tuple(range(first, first + _rank_count(request, gpus)))
        places.append(_Place(spec=spec, node_rank=node_rank, ranks=ranks, gpus=gpus))
        first += len(ranks)
    return tuple(places)


def _rank_count(request: RunRequest, gpus: tuple[int, ...]) -> int:
    if request.ranks_per_node is not None:
        return request.ranks_per_node
    ranks = request.job.workload.ranks
    if ranks.per is Per.NODE:
        return 1
    return len(gpus) or ranks.cpu


def _gpus_of(
    spec: NodeSpec, used: Sequence[NodeSpec], findings: Mapping[str, Finding]
) -> tuple[int, ...]:
    """Declared GPUs, else all that were found; nodes that are one machine divide it evenly."""
    facts = findings[spec.name].facts
    if spec.gpus.indices is not None:
        return spec.gpus.indices
    indices = tuple(gpu.index for gpu in facts.gpus)
    host = facts.host_id
    tenants = [s.name for s in used if host and findings[s.name].facts.host_id == host]
    if len(tenants) > 1:
        share = len(indices) // len(tenants)
        start = tenants.index(spec.name) * share
        indices = indices[start : start + share]
    return indices if spec.gpus.count is None else indices[: spec.gpus.count]


def _node_plan(world: _World, place: _Place) -> NodePlan:
    finding = world.findings[place.spec.name]
    job = world.request.job
    share = Share(
        node=place.spec.name,
        node_rank=place.node_rank,
        names=tuple(p.spec.name for p in world.places),
        ranks=place.ranks,
        world_size=world.size,
        interpreter=finding.interpreter,
        script=f"{code_root(job.workload)}/{world.request.entry}",
        program=job.workload.program,
        arguments=job.argv(),
        master_addr=world.rendezvous.address if world.rendezvous else CHOSEN_AT_LAUNCH,
        master_port=str(world.rendezvous.port) if world.rendezvous else CHOSEN_AT_LAUNCH,
        own_world=world.own_worlds,
        options=world.request.launcher_options,
    )
    return NodePlan(
        name=place.spec.name,
        node_rank=place.node_rank,
        ranks=place.ranks,
        gpus=place.gpus,
        interpreter=finding.interpreter,
        env=_environment(world, place),
        processes=LAUNCHERS[world.launcher](share),
        locks=_locks(world, place),
    )


def _locks(world: _World, place: _Place) -> tuple[Lock, ...]:
    """The node's GPUs; and the machine, which other runs may share unless it is to be exclusive."""
    gpus = tuple(Lock(name=f"gpu-{index}") for index in place.gpus)
    if not world.request.exclusive:
        return (*gpus, Lock(name="machine", shared=True))
    # Of several nodes that are one machine the first takes it for all.
    host = world.findings[place.spec.name].facts.host_id
    before = (p.spec.name for p in world.places[: place.node_rank])
    taken = host and any(world.findings[name].facts.host_id == host for name in before)
    return gpus if taken else (*gpus, Lock(name="machine"))


def _environment(world: _World, place: _Place) -> tuple[Variable, ...]:
    spec = place.spec
    facts = world.findings[spec.name].facts
    derived = tuning.derive(
        facts,
        ranks=len(place.ranks),
        nodes=len(world.places) if world.meets else 1,
        interface=world.interface(spec.name) if world.meets else None,
        shared_by=world.tenants(spec.name),
        torch=(world.findings[spec.name].modules or {}).get("torch", ""),
    )
    source = f"{world.request.cluster.source}: {spec.name}"
    variables = tuning.merge(derived, spec.env, source)
    variables = tuning.merge(variables, world.request.env, "--env")
    variables = tuple(v for v in variables if v.name != "PYTHONPATH")
    variables = (*variables, *_rung_variables(world, place), _python_path(world.request, spec))
    if spec.gpus.indices is None and len(place.gpus) == len(facts.gpus):
        return variables
    return (*variables, tuning.visible_devices(place.gpus, len(facts.gpus)))


def _python_path(request: RunRequest, spec: NodeSpec) -> Variable:
    """The code's root and the kit, before what the user asks for."""
    workload = request.job.workload
    root = code_root(workload)
    kit = f"{root}/{PROJECT_KIT}" if workload.own_code else ""
    asked = {**spec.env, **request.env}.get("PYTHONPATH", "")
    parts = (root, kit, reveal(asked))
    return Variable(
        name="PYTHONPATH",
        value=":".join(part for part in parts if part),
        origin=tuning.LAUNCHER,
        reason="the code that travelled, and the kit",
    )


def _proves_fabric(world: _World) -> bool:
    """Whether ranks of different machines are to meet through torch: nothing else is worth it."""
    together = same_machine(list(world.findings.values()))
    has_torch = _has_torch(world.findings.values()) is True
    asked = world.request.fabric_probe and not world.request.job.workload.program
    return world.meets and len(world.places) > 1 and not together and has_torch and asked


def _rung_variables(world: _World, place: _Place) -> Iterator[Variable]:
    """What the rung in use asks of the ranks."""
    if world.rung is Rung.NCCL_SOCKET and any(f.facts.hcas for f in world.findings.values()):
        yield _rung_variable("NCCL_IB_DISABLE", "1", "InfiniBand failed: NCCL over sockets")
    if world.own_worlds:
        why = "ranks count from 0 on every node; the run knows them apart"
        yield _rung_variable("ORCHESTRATE_FIRST_RANK", str(place.ranks[0]), why)
    if world.rung is Rung.LEASES:
        yield _rung_variable("ORCHESTRATE_SAMPLES", "leased", "samples come from the coordinator")
    if world.rung is Rung.LOCAL_ROUNDS:
        why = "no collectives between nodes: averaged by the coordinator"
        yield _rung_variable("ORCHESTRATE_ROUNDS", f"{place.node_rank}/{len(world.places)}", why)


def _rung_variable(name: str, value: str, reason: str) -> Variable:
    return Variable(name=name, value=value, origin=tuning.LAUNCHER, reason=reason)


def _ground(
    request: RunRequest,
    findings: Mapping[str, Finding],
    places: Sequence[_Place],
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
    problem = Problem(
        id=last.id,
        message=last.reason,
        remedy=last.remedy or "repair the network between them, or leave nodes out with --nodes",
    )
    return Refusal(problem=problem, excluded=excluded)
