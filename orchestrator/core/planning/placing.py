"""Where each rank runs: every node's place in the world, and what is started there. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.core import tuning
from orchestrator.core.base.command import reveal_secret
from orchestrator.core.containers.containing import ContainedNode
from orchestrator.core.launchers import LAUNCHERS, Launcher, LaunchSpec, set_by_launcher
from orchestrator.core.model import devices
from orchestrator.core.model.captures import PROFILED_NODES, CaptureKind
from orchestrator.core.model.checks import NodeFinding
from orchestrator.core.model.comm_modes import APART, CommMode
from orchestrator.core.model.facts import Facts
from orchestrator.core.model.inventory import GpuSpec, NodeSpec
from orchestrator.core.model.plan import Lock, NodePlan, Rendezvous, Variable
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.workload import Per, Workload
from orchestrator.core.tuning import Situation, Tuned

# Where the kit lies in a user's own project: nothing of the user's is called that.
PROJECT_KIT = ".orchestrate/kit"

CHOSEN_AT_LAUNCH = "<chosen at launch>"


def code_root(workload: Workload) -> str:
    """Where the code lies on a node, as a placeholder that the node resolves."""
    return "{work}" if workload.own_code else "{snapshot}"


def rank_directory(workload: Workload) -> str:
    """Where ranks are started, likewise."""
    return "{work}" if workload.own_code else "{output}"


def same_machine(findings: Sequence[NodeFinding]) -> bool:
    """Whether all nodes are one machine under several names."""
    hosts = {finding.facts.host_id for finding in findings}
    return len(hosts) == 1 and hosts != {""}


def addresses_of(facts: Facts) -> tuple[str, ...]:
    """What others may know a node by, best first: the address that SSH came in by, then those of
    its other interfaces.
    """
    addresses = [facts.route_address] if facts.route_address else []
    by_speed = sorted(facts.interfaces, key=lambda interface: -interface.speed_mbit)
    for interface in by_speed:
        if interface.up and not interface.loopback:
            addresses += [a for a in interface.addresses if not a.startswith(("fe80:", "169.254."))]
    return tuple(dict.fromkeys(addresses))


@dataclass(frozen=True, slots=True, kw_only=True)
class RankPlacement:
    """A node's place in the world."""

    spec: NodeSpec
    node_rank: int
    ranks: tuple[int, ...]
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """What follows from all nodes together, in rank order: once, and not anew for each of them.

    ``machines``: the names of each machine by its host id; ``interfaces``: what carries each node's
    connection to the rendezvous; ``job``: what a scheduler is asked for, if there is one.
    """

    names: tuple[str, ...]
    gpus: tuple[tuple[int, ...], ...]
    addresses: tuple[tuple[str, ...], ...]
    size: int
    machines: Mapping[str, Sequence[str]]
    interfaces: Mapping[str, str]
    job: object


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedWorld:
    """All that the plan of one node may depend on."""

    request: RunRequest
    findings: Mapping[str, NodeFinding]
    places: tuple[RankPlacement, ...]
    launcher: str
    rung: CommMode
    rendezvous: Rendezvous | None
    roster: Roster = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "roster", _roster_of(self))

    def interface(self, node: str) -> str | None:
        """What carries the node's connection to the rendezvous; a placeholder until known."""
        if self.rendezvous is not None:
            return self.roster.interfaces.get(node)
        return CHOSEN_AT_LAUNCH if self.meets else None

    @property
    def kind(self) -> Launcher:
        """The launcher with its traits."""
        return LAUNCHERS[self.launcher]

    @property
    def assumed(self) -> bool:
        return any(finding.facts.assumed for finding in self.findings.values())

    @property
    def meets(self) -> bool:
        """Whether ranks of different nodes meet at a rendezvous."""
        return self.kind.ranks_meet and self.rung not in {*APART, CommMode.INDEPENDENT}

    @property
    def own_worlds(self) -> bool:
        """Whether each node's ranks are a world of their own."""
        return self.rung is CommMode.LOCAL_ROUNDS or (
            self.rung in {CommMode.LEASES, CommMode.INDEPENDENT} and self.kind.needs_world
        )


def _roster_of(world: PlannedWorld) -> Roster:
    facts = {place.spec.name: world.findings[place.spec.name].facts for place in world.places}
    gpus = {place.spec.name: len(place.gpus) for place in world.places}
    scheduler, met = world.kind.scheduler, world.rendezvous
    return Roster(
        names=tuple(facts),
        gpus=tuple(place.gpus for place in world.places),
        addresses=tuple(map(addresses_of, facts.values())),
        size=sum(len(place.ranks) for place in world.places),
        machines=devices.machine_names(facts.items()),
        interfaces=dict(met.interfaces) if met is not None else {},
        job=scheduler.plan_job(world.request, world.findings, gpus) if scheduler else None,
    )


def place_nodes(
    request: RunRequest, used: Sequence[NodeSpec], findings: Mapping[str, NodeFinding]
) -> tuple[RankPlacement, ...]:
    """Ranks are numbered densely in inventory order."""
    places: list[RankPlacement] = []
    machines = devices.machine_names((spec.name, findings[spec.name].facts) for spec in used)
    first = 0
    for node_rank, spec in enumerate(used):
        facts = findings[spec.name].facts
        gpus = _gpus_of(request, spec, facts, machines.get(facts.host_id, ()))
        ranks = tuple(range(first, first + _rank_count(request, gpus)))
        places.append(RankPlacement(spec=spec, node_rank=node_rank, ranks=ranks, gpus=gpus))
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
    request: RunRequest,
    spec: NodeSpec,
    facts: Facts,
    tenants: Sequence[str],
) -> tuple[int, ...]:
    """What the inventory declares and the user chose; ``tenants``, nodes that are one machine,
    divide evenly what nobody declared.
    """
    chosen = devices.choice(spec.env, request.env)
    if spec.gpus.indices is not None or len(tenants) < 2:
        return devices.gpus_of(spec, facts, chosen)
    indices = devices.gpus_of(replace(spec, gpus=GpuSpec()), facts, chosen)
    share = len(indices) // len(tenants)
    start = tenants.index(spec.name) * share
    return indices[start : start + share][: spec.gpus.count]


def plan_nodes(world: PlannedWorld, places: Sequence[RankPlacement]) -> tuple[NodePlan, ...]:
    """The shares of the nodes at ``places``, in that order."""
    return tuple(_node_plan(world, place) for place in places)


def _node_plan(world: PlannedWorld, place: RankPlacement) -> NodePlan:
    finding = world.findings[place.spec.name]
    tuned = _tune_node(world, place)
    share = LaunchSpec(
        node=place.spec.name,
        node_rank=place.node_rank,
        names=world.roster.names,
        ranks=place.ranks,
        world_size=world.roster.size,
        interpreter=finding.interpreter,
        command=_rank_command(world.request, finding.interpreter),
        master_addr=world.rendezvous.address if world.rendezvous else CHOSEN_AT_LAUNCH,
        master_port=str(world.rendezvous.port) if world.rendezvous else CHOSEN_AT_LAUNCH,
        per_node_world=world.own_worlds,
        apart=world.rung in APART,
        gpus=world.roster.gpus,
        addresses=world.roster.addresses,
        options=world.request.launcher_options,
        token=world.request.token,
        job=world.roster.job,
        grace_s=world.request.budgets.grace_s,
        decided=frozenset(variable.name for variable in tuned.env),
    )
    processes = world.kind.processes(share)
    tuned = tuning.without_effect(tuned, set_by_launcher(world.kind, processes))
    contained = _contained_node(world, place, tuned.env)
    return NodePlan(
        name=place.spec.name,
        node_rank=place.node_rank,
        ranks=place.ranks,
        gpus=place.gpus,
        interpreter=finding.interpreter,
        env=tuned.env,
        processes=tuple(map(contained.wrap, processes)) if contained else processes,
        locks=_node_locks(world, place),
        left=tuned.left,
        trial=contained.trial_words() if contained else (),
    )


def _contained_node(
    world: PlannedWorld, place: RankPlacement, env: tuple[Variable, ...]
) -> ContainedNode | None:
    """Where the node's processes run; None: in no container."""
    spec, finding = place.spec, world.findings[place.spec.name]
    if spec.container is None:
        return None
    return ContainedNode(
        spec=spec.container,
        image=finding.image,
        interpreter=finding.interpreter,
        directory=rank_directory(world.request.job.workload),
        env=env,
        labels=(f"orchestrate.run={world.request.run_id}", f"orchestrate.node={spec.name}"),
        gpus=bool(place.gpus),
        infiniband=bool(finding.facts.hcas),
    )


def _rank_command(request: RunRequest, interpreter: str) -> tuple[str, ...]:
    """What every rank executes, whichever launcher starts it."""
    workload, arguments = request.job.workload, request.job.argv()
    if workload.program:
        return (*workload.program, *arguments)
    script = (f"{code_root(workload)}/{request.entry}",) if request.entry else ()
    return (interpreter, "-u", *workload.python, *script, *arguments)


def _node_locks(world: PlannedWorld, place: RankPlacement) -> tuple[Lock, ...]:
    """The node's GPUs; and the machine, which other runs may share unless it is to be exclusive."""
    gpus = tuple(Lock(name=f"gpu-{index}") for index in place.gpus)
    if not world.request.exclusive:
        return (*gpus, Lock(name="machine", shared=True))
    # Of several nodes that are one machine the first takes it for all.
    name = place.spec.name
    names = world.roster.machines.get(world.findings[name].facts.host_id, [name])
    return gpus if names[0] != name else (*gpus, Lock(name="machine"))


def _tune_node(world: PlannedWorld, place: RankPlacement) -> Tuned:
    spec = place.spec
    finding = world.findings[spec.name]
    facts = finding.facts
    situation = Situation(
        facts=facts,
        ranks=len(place.ranks),
        nodes=len(world.places) if world.meets else 1,
        interface=world.interface(spec.name) if world.meets else None,
        shared_by=len(world.roster.machines.get(facts.host_id, ())) or 1,
        modules=dict(finding.modules or {}),
        bound=_bound_gpus(world, place),
        collectives=_may_use_collectives(world, place),
    )
    source = f"{world.request.cluster.source}: {spec.name}"
    settings = [(source, spec.env), ("--env", world.request.env)]
    derived = (*tuning.derive_variables(situation), *_activation_variables(finding))
    tuned = tuning.merge_variables(derived, facts.nccl_conf, settings)
    asked = (
        *_rung_variables(world, place),
        _python_path(world.request, spec, finding),
        *_path_variable(world.request, spec, finding),
        *_capture_variables(world.request, place),
    )
    asked = (*asked, *_visible_devices(world.request, place, facts))
    replaced = {a.name for a in asked}
    variables = (*(v for v in tuned.env if v.name not in replaced), *asked)
    return replace(tuned, env=variables)


def _visible_devices(request: RunRequest, place: RankPlacement, facts: Facts) -> Iterator[Variable]:
    """Shows ranks the GPUs of the plan, unless they see just these anyway."""
    chosen = devices.choice(place.spec.env, request.env)
    if chosen is not None and (
        facts.assumed or devices.visible_gpus(chosen, facts).gpus == place.gpus
    ):
        return
    declared = place.spec.gpus.indices is not None
    if chosen is not None or declared or len(place.gpus) != len(facts.gpus):
        yield tuning.visible_devices(place.gpus, len(facts.gpus))


def _may_use_collectives(world: PlannedWorld, place: RankPlacement) -> bool:
    """Workers that meet nobody have none, unless one of them has several GPUs."""
    return not world.kind.isolates_ranks or len(place.ranks) < len(place.gpus)


def _bound_gpus(world: PlannedWorld, place: RankPlacement) -> tuple[int, ...]:
    """The GPUs of the node's ranks, if each has its own and can be bound as it starts. A user who
    chooses devices knows better which rank has which.
    """
    chosen = devices.choice(place.spec.env, world.request.env) is not None
    binds = world.kind.binds_ranks and len(place.gpus) == len(place.ranks)
    return place.gpus if binds and not chosen else ()


def _activation_variables(finding: NodeFinding) -> Iterator[Variable]:
    """What makes the environment of the ranks' interpreter the one that their programs find."""
    for name, value in finding.environment.items():
        why = f"the environment of {finding.interpreter}"
        if value == f"{{environment:{name}}}":
            why = f"set on the node as {why} is activated: conda's activate.d and env config vars"
        yield tuning.derived_variable(name, value, "python-environment", why)


def _path_variable(request: RunRequest, spec: NodeSpec, finding: NodeFinding) -> Iterator[Variable]:
    """A PATH of the user's, behind the programs of the environment that the inventory names."""
    asked = reveal_secret({**spec.env, **request.env}.get("PATH", ""))
    own = finding.environment.get("PATH", "").partition(":")[0]
    if asked and own and own not in asked.split(":"):
        yield Variable(
            name="PATH",
            value=f"{own}:{asked}",
            origin=tuning.USER,
            reason=f"as set by the user, behind the environment of {finding.interpreter}",
        )


def _python_path(request: RunRequest, spec: NodeSpec, finding: NodeFinding) -> Variable:
    """The code's root and the kit, before what the user asks for."""
    workload = request.job.workload
    root = code_root(workload)
    imports = f"{root}/{workload.import_root}" if workload.import_root else ""
    kit = f"{root}/{PROJECT_KIT}" if workload.own_code else ""
    asked = {**finding.environment, **spec.env, **request.env}.get("PYTHONPATH", "")
    parts = (imports, root, kit, reveal_secret(asked))
    return Variable(
        name="PYTHONPATH",
        value=":".join(part for part in parts if part),
        origin=tuning.LAUNCHER,
        reason="the code that travelled, and the kit",
    )


def _rung_variables(world: PlannedWorld, place: RankPlacement) -> Iterator[Variable]:
    """What the rung in use asks of the ranks."""
    if world.rung is CommMode.NCCL_SOCKET and any(f.facts.hcas for f in world.findings.values()):
        yield _rung_variable("NCCL_IB_DISABLE", "1", "InfiniBand failed: NCCL over sockets")
    if world.own_worlds:
        why = "ranks count from 0 on every node; the run knows them apart"
        yield _rung_variable("ORCHESTRATE_FIRST_RANK", str(place.ranks[0]), why)
        yield _rung_variable("ORCHESTRATE_WORLD_SIZE", str(world.roster.size), "ranks of all nodes")
    if world.rung is CommMode.LEASES:
        yield _rung_variable("ORCHESTRATE_SAMPLES", "leased", "samples come from the coordinator")
        why = "outputs of other code or other samples do not mix"
        yield _rung_variable("ORCHESTRATE_CONFIGURATION", world.request.configuration, why)
    if world.rung is CommMode.LOCAL_ROUNDS:
        why = "no collectives between nodes: averaged by the coordinator"
        yield _rung_variable("ORCHESTRATE_ROUNDS", f"{place.node_rank}/{len(world.places)}", why)
        why = "ranks of one node meet there, whatever is wrong with what lies between nodes"
        yield _rung_variable("NCCL_SOCKET_IFNAME", "lo", why)
        yield _rung_variable("GLOO_SOCKET_IFNAME", "lo", why)


def _capture_variables(request: RunRequest, place: RankPlacement) -> Iterator[Variable]:
    """What ranks record themselves. Profiles are taken on the first nodes alone; those of all other
    nodes only keep their measured windows closed meanwhile.
    """
    captures = {capture.kind: capture for capture in request.captures}
    if captures:
        why = "what the run captures (--capture)"
        yield _rung_variable("ORCHESTRATE_CAPTURES", ",".join(captures), why)
    if (profile := captures.get(CaptureKind.PROFILE)) is not None:
        chosen = place.node_rank < PROFILED_NODES
        value = f"{profile.seconds:g}@{profile.after_s:g}" + ("" if chosen else "/meanwhile")
        why = "one rank of this node profiles itself" if chosen else "ranks of others do"
        yield _rung_variable("ORCHESTRATE_PROFILE", value, f"{why} (--capture profile)")


def _rung_variable(name: str, value: str, reason: str) -> Variable:
    return Variable(name=name, value=value, origin=tuning.LAUNCHER, reason=reason)
