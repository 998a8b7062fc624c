"""One simulated run from a plan to its end, with every coordinator that it took."""

from __future__ import annotations

import asyncio
import functools
import gc
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.adapters.store.atomic_files import write_json
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.codec import to_json
from orchestrator.core.base.errors import RunFailed
from orchestrator.core.model.inventory import Cluster, NodeSpec, SshEndpoint
from orchestrator.core.model.plan import Budgets
from orchestrator.core.model.request import RunRequest
from orchestrator.core.model.workload import Job, Ranks, Workload
from orchestrator.core.run.events import StopKind, StopRequested
from orchestrator.core.verdict.result import Result, Status
from orchestrator.engine.run import execute, resume
from tests.simulation import checks, faults
from tests.simulation.coordinator import Coordinator, CrashPoint, watched_engine
from tests.simulation.faults import Fault
from tests.simulation.loop import Killed, Stalled, TooLong, VirtualLoop, virtual_loop
from tests.simulation.network import SSHD_NOTICES_S
from tests.simulation.supervisor import Rank, Script
from tests.simulation.world import CODE, RUN, FakeWorld, Tenant

BUDGETS = Budgets(
    connect_s=10.0,
    probe_s=10.0,
    sync_s=20.0,
    prepare_s=20.0,
    reach_s=10.0,
    launch_s=10.0,
    grace_s=3.0,
    collect_s=20.0,
    clean_s=30.0,
    silence_s=8.0,
    lease_s=12.0,
)
# Much longer than all budgets together: whoever still waits then waits for ever.
PATIENCE_S = 600.0
MAX_COORDINATORS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationPlan:
    """``crashes`` are where the coordinators are killed, one after the other; ``silently``: by a
    power cut, which also costs what was not synced to disk. At ``heal_s`` every fault is undone.
    ``stop``: who finds a run without its coordinator ends it instead of going on.

    ``insist``: a run that ended without success is retried once all is healed, and then succeeds
    unless its script fails. ``benign``: its faults must not cost the run anything.
    """

    seed: int = 0
    nodes: tuple[str, ...] = ("a", "b")
    ranks_per_node: int = 1
    gpus: int = 0
    with_torch: bool = True
    script: Script = field(default_factory=Script)
    budgets: Budgets = BUDGETS
    exclusive: bool = False
    wait_s: float | None = None
    tenants: tuple[Tenant, ...] = ()
    faults: tuple[Fault, ...] = ()
    crashes: tuple[CrashPoint | None, ...] = ()
    silently: bool = False
    heal_s: float = 0.0
    pause_s: float = 2.0
    insist: bool = True
    benign: bool = False
    stop: bool = False


@dataclass(slots=True)
class Report:
    """How it went. ``violations`` empty: every invariant held."""

    plan: SimulationPlan
    violations: list[str]
    trace: list[str]
    outcomes: list[str] = field(default_factory=list)
    result: Result | None = None
    points: dict[str, int] = field(default_factory=dict)
    facts: checks.Facts | None = None
    steps: int = 0
    seconds: float = 0.0


def simulate(plan: SimulationPlan, *, trace: bool = False) -> Report:
    """Play ``plan`` to its end."""
    gc.disable()
    try:
        with virtual_loop() as loop, _home() as home, watched_engine():
            simulation = Simulation(loop, plan, home, trace=trace)
            loop.set_exception_handler(simulation.on_loop_error)
            try:
                loop.run_until_complete(simulation.run())
            except (Stalled, TooLong) as error:
                simulation.world.violate(f"it does not come to an end: {error}")
            return simulation.report()
    finally:
        gc.enable()


@contextmanager
def _home() -> Iterator[Path]:
    memory = Path("/dev/shm")
    home = Path(tempfile.mkdtemp(prefix="sim-", dir=memory if memory.is_dir() else None))
    try:
        yield home
    finally:
        shutil.rmtree(home)


def request_of(plan: SimulationPlan) -> RunRequest:
    workload = Workload(
        name="job", source="-", folder="/job", entry="job.py", ranks=Ranks(cpu=plan.ranks_per_node)
    )
    nodes = tuple(NodeSpec(name=name, ssh=SshEndpoint(host=name)) for name in plan.nodes)
    return RunRequest(
        run_id=RUN,
        cluster=Cluster(name="sim", source="sim.yaml", nodes=nodes),
        job=Job(workload=workload),
        ranks_per_node=plan.ranks_per_node,
        budgets=plan.budgets,
        code=CODE,
        entry="job/job.py",
        exclusive=plan.exclusive,
        wait_s=plan.wait_s,
    )


class Simulation:
    """The world, and the coordinators of the one run in it, one after the other."""

    def __init__(self, loop: VirtualLoop, plan: SimulationPlan, home: Path, *, trace: bool) -> None:
        self.plan = plan
        self.world = FakeWorld(
            loop,
            plan.seed,
            plan.nodes,
            plan.script,
            gpus=plan.gpus,
            with_torch=plan.with_torch,
        )
        self.world.trace = [] if trace else None
        self.request = request_of(plan)
        self.coordinators: list[Coordinator] = []
        self.stops_requested = 0
        self._all_well = asyncio.Event()
        self._home = home
        self._folder = Layout(home / "home-1").run(RUN)
        self._folder.create()
        write_json(self._folder.request, to_json(self.request))
        self._facts: checks.Facts | None = None

    @property
    def current(self) -> Coordinator:
        return self.coordinators[-1]

    # ---- the run --------------------------------------------------------------------------------

    async def run(self) -> None:
        for tenant in self.plan.tenants:
            self.world.add_tenant(tenant)
        for fault in self.plan.faults:
            self.world.call_later(fault.at_s, faults.begin, self, fault)
        self.world.call_later(self.plan.heal_s, self.heal)
        self._start(execute)
        while await self._goes_on():
            pass
        await self._end_stale()
        await self._settle()

    def _start(self, drive: Any, **options: Any) -> None:
        number = len(self.coordinators)
        crashes = self.plan.crashes
        coordinator = Coordinator(
            self.world,
            self.request,
            self._folder,
            f"coordinator-{number + 1}",
            drive,
            crash=crashes[number] if number < len(crashes) else None,
            silently=self.plan.silently,
            **options,
        )
        coordinator.at_end = functools.partial(checks.at_end_of_coordinator, self)
        self.coordinators.append(coordinator)
        coordinator.start()

    async def _goes_on(self) -> bool:
        """Wait for the present coordinator's end, and start another one if one is needed."""
        coordinator = self.current
        await self._end_of(coordinator)
        if coordinator is not self.current:
            return True
        outcome = coordinator.outcome
        if len(self.coordinators) >= MAX_COORDINATORS:
            self.world.violate(f"{MAX_COORDINATORS} coordinators did not bring it to an end")
            return False
        if isinstance(outcome, Result):
            return await self._retry(outcome)
        await asyncio.sleep(self.plan.pause_s)
        if len(self.coordinators) > MAX_COORDINATORS // 2 or isinstance(outcome, RunFailed):
            await self._until_healed()
        self._start(self._continue())
        return True

    def _continue(self) -> Any:
        """``orchestrate resume``, or ``orchestrate stop``."""
        if not self.plan.stop:
            return resume
        self.stops_requested += 1
        at = self.current.clock.wall()
        stop = StopRequested(kind=StopKind.GRACEFUL, by="orchestrate stop", at=at)
        return functools.partial(resume, stop=stop)

    async def _retry(self, result: Result) -> bool:
        """As ``orchestrate resume`` does, once all is well again."""
        if result.status is Status.SUCCEEDED:
            return False
        if self.plan.benign:
            self.world.violate(f"faults that must not matter: {self.current.describe()}")
        if self.plan.benign or not self.plan.insist:
            return False
        if self._tried_in_peace():
            if not checks.may_fail(self):
                self.world.violate(f"a retry without any fault: {self.current.describe()}")
            return False
        await self._until_healed()
        self._start(functools.partial(resume, again=True), again=True)
        return True

    def _tried_in_peace(self) -> bool:
        return self.current.again and self.current.began_s >= self.plan.heal_s

    async def _until_healed(self) -> None:
        await self._all_well.wait()

    async def _end_of(self, coordinator: Coordinator) -> None:
        deadline = max(self.world.now, self.plan.heal_s) + PATIENCE_S
        while not coordinator.ended.is_set():
            if coordinator is not self.current:
                return
            if self.world.now > deadline:
                self.world.violate(f"{coordinator.process.name} does not end")
                raise Stalled(f"{coordinator.process.name} does not end")
            await asyncio.sleep(0.25)

    async def _end_stale(self) -> None:
        """Coordinators that were replaced find out, or finish, in bounded time, too."""
        deadline = max(self.world.now, self.plan.heal_s) + PATIENCE_S
        for coordinator in self.coordinators:
            while not coordinator.ended.is_set():
                if self.world.now > deadline:
                    self.world.violate(f"{coordinator.process.name} (stale) does not end")
                    coordinator.kill()
                await asyncio.sleep(1.0)

    async def _settle(self) -> None:
        """No coordinator is left: what a lost node still has ends by its lease, or by `stop`."""
        await self._until_healed()
        lease_s = self.plan.budgets.lease_s
        if lease_s is not None:
            await asyncio.sleep(lease_s * 1.1 + self.plan.budgets.grace_s + 5.0)
        else:
            await checks.stop_remains(self)
        await asyncio.sleep(SSHD_NOTICES_S)
        checks.at_end(self)
        self._facts = checks.facts(self)

    # ---- what faults do -------------------------------------------------------------------------

    def take_over(self) -> None:
        """A copy of the folder, on a machine that cannot see the old coordinator's lock."""
        folder = Layout(self._home / f"home-{len(self.coordinators) + 1}").run(RUN)
        shutil.copytree(self._folder.path, folder.path)
        for path in folder.path.rglob("*"):
            self.world.synced[path.stat().st_ino] = path.stat().st_size
        self._folder = folder
        self._start(resume)

    def rival(self) -> None:
        """Another coordinator on this machine, while the present one lives: it gives up at once."""
        name = f"rival-{len(self.coordinators)}"
        rival = Coordinator(self.world, self.request, self._folder, name, resume)
        rival.at_end = functools.partial(checks.at_end_of_rival, self)
        rival.start()

    def thaw(self, coordinator: Coordinator) -> None:
        if coordinator.process.frozen:
            self.world.loop.thaw(coordinator.process)

    def heal(self) -> None:
        """All is well again."""
        self.world.note("HEALED")
        for node in self.world.nodes.values():
            if not node.up:
                node.boot()
            node.sshd, node.slow = True, 1.0
            faults.free_disk(node)
            link = self.world.links[node.name]
            link.delay_s, link.duplicates = 0.002, False
            link.heal()
            for process in node.processes:
                if isinstance(process, Rank):
                    process.frozen = False
        for coordinator in self.coordinators:
            coordinator.disk_full = False
            self.thaw(coordinator)
        self._all_well.set()

    # ---- the report -----------------------------------------------------------------------------

    def on_loop_error(self, loop: object, context: dict[str, Any]) -> None:
        del loop
        error = context.get("exception")
        if isinstance(error, Killed):
            return
        self.world.violate(f"unheard in a task: {context.get('message')} {error!r}")

    def report(self) -> Report:
        last = self.current.outcome
        return Report(
            plan=self.plan,
            violations=self.world.violations,
            trace=self.world.trace or [],
            outcomes=[c.describe() for c in self.coordinators],
            result=last if isinstance(last, Result) else None,
            points=dict(self.coordinators[0].seen.points),
            facts=self._facts,
            steps=self.world.loop.steps,
            seconds=self.world.now,
        )
