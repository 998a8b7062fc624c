"""One run of a drill's own: coordinated here by the production engine, watched, within reach."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from orchestrator.adapters.agent_client.connect_agent import OwnedChannel, connect_agent
from orchestrator.adapters.store.atomic_files import write_json
from orchestrator.adapters.store.claim import claimed
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.run_list import new_run_id
from orchestrator.adapters.sync.code_snapshot import Snapshot
from orchestrator.adapters.transport.transport import ConnectLimits
from orchestrator.core.base.codec import to_json
from orchestrator.core.base.errors import BusyError, ExitCode, PreflightError, RunFailed
from orchestrator.core.drill_promises import Drill, DrillFinding, Moment, ranks_run, wrong_log
from orchestrator.core.model.inventory import NodeSpec
from orchestrator.core.model.plan import NodePlan
from orchestrator.core.model.request import RunRequest
from orchestrator.core.run.events import Event
from orchestrator.core.run.kit_reports import Progressed
from orchestrator.core.run.state import RunState, new_state
from orchestrator.core.verdict.result import Result, Status
from orchestrator.engine.support.clock import Clock, SystemClock
from orchestrator.engine.support.context import RunContext
from orchestrator.engine.support.interrupts import Abandoned, Interrupts

QUICK_S = 30.0
STEADY_LINES = 4
RANKS_WRITE = "lines of every rank"
RANKS_S = 60.0  # from the beginning of a run until its ranks write
OCCUPIED = "OR-LOCK-001"

Drive = Callable[[RunContext], Coroutine[Any, Any, Result]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all drills share. ``request`` is that of the sleeping job; its run id does not count."""

    layout: Layout
    request: RunRequest
    snapshot: Snapshot
    clock: Clock = field(default_factory=SystemClock)

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(spec.name for spec in self.request.cluster.workers)


class Timeline:
    """An observer that remembers. ``lines`` counts the lines that came of each (node, file)."""

    def __init__(self, clock: Clock) -> None:
        self.moments: list[Moment] = []
        self.lines: Counter[tuple[str, str]] = Counter()
        self._clock = clock
        self._news = asyncio.Event()

    def on_event(self, at: float, event: Event, state: RunState) -> None:
        del at
        if not isinstance(event, Progressed):  # there are many, and they change nothing
            self.moments.append(Moment(at=self._clock.monotonic(), event=event, state=state))
            self._news.set()

    def on_log(self, node: str, file: str, chunk: bytes) -> None:
        self.lines[node, file] += chunk.count(b"\n")
        self._news.set()

    def on_note(self, text: str) -> None:
        del text

    def close(self, result: Result | None) -> None:
        del result

    def wake(self) -> None:
        self._news.set()

    async def news(self) -> None:
        """Wait for the next thing that happens."""
        await self._news.wait()
        self._news.clear()


class Tap:
    """Dials as a run does, and keeps the channels and when each was opened, by node."""

    def __init__(self, clock: Clock) -> None:
        self.channels: dict[str, OwnedChannel] = {}
        self.opened: dict[str, list[float]] = {}
        self._clock = clock

    async def __call__(
        self, spec: NodeSpec, *, limits: ConnectLimits, timeout_s: float
    ) -> OwnedChannel:
        channel = await connect_agent(spec, limits=limits, timeout_s=timeout_s)
        self.channels[spec.name] = channel
        self.opened.setdefault(spec.name, []).append(self._clock.monotonic())
        return channel


class Scene:
    """One drill's run. ``findings`` fill while it goes on; ``interrupts`` ask for its end."""

    def __init__(self, setting: Setting, drill: Drill, node: str) -> None:
        self.setting = setting
        self.drill = drill
        self.node = node
        self.clock = setting.clock
        self.findings: dict[str, DrillFinding] = {}
        self.interrupts = Interrupts()
        self.timeline = Timeline(self.clock)
        self.tap = Tap(self.clock)
        self.result: Result | None = None
        self.request = _drill_request(setting, drill)
        self.folder: RunFolder = setting.layout.run(self.request.run_id)
        self._claim = contextlib.ExitStack()
        self._driving: asyncio.Task[Result] | None = None

    # ---- the run ---------------------------------------------------------------------------------

    def create(self) -> None:
        """The run's folder, before any contact. Raises ``OSError``."""
        self.folder.create()
        write_json(self.folder.request, to_json(self.request))

    def begin(self, drive: Drive) -> None:
        """Coordinate the run here. ``drive`` is a way into the engine."""
        self._claim.enter_context(claimed(self.folder, at=self.clock.wall()))
        context = RunContext(
            request=self.request,
            snapshot=self.setting.snapshot,
            folder=self.folder,
            observers=[self.timeline],
            clock=self.clock,
            dial=self.tap,
            interrupts=self.interrupts,
        )
        self._driving = asyncio.create_task(_settle_run(drive(context)))
        self._driving.add_done_callback(lambda _: self.timeline.wake())

    async def running(self) -> None:
        """Until every rank writes line after line. Raises as :meth:`until`."""

        def write() -> bool:
            return ranks_run(self.state) and self.heard(STEADY_LINES)

        await self.until(write, RANKS_S, RANKS_WRITE)

    async def until(self, holds: Callable[[], bool], within_s: float, what: str) -> None:
        """Wait for ``what``. Raises ``BusyError``, ``PreflightError`` or ``RunFailed`` when the run
        ends before, and ``RunFailed`` when it takes too long.
        """
        async with within_seconds(within_s, what):
            while not holds():
                if self._driving is not None and self._driving.done():
                    raise ended_early(self._driving.result())
                await self.timeline.news()

    async def over(self) -> Result:
        """The verdict."""
        assert self._driving is not None
        self.result = await self._driving
        return self.result

    async def close(self) -> None:
        """Let go of the run, whether it is over or not. Raises nothing of the run's."""
        if self._driving is not None:
            self._driving.cancel()
            await asyncio.gather(self._driving, return_exceptions=True)
        self._claim.close()

    # ---- what is known of it ---------------------------------------------------------------------

    @property
    def moments(self) -> list[Moment]:
        return self.timeline.moments

    @property
    def state(self) -> RunState:
        """The latest; before the first event there is none to ask for."""
        return self.moments[-1].state if self.moments else new_state(self.request)

    @property
    def shares(self) -> tuple[NodePlan, ...]:
        return self.state.plan.nodes if self.state.plan else ()

    @property
    def rank(self) -> int:
        """The rank that is disturbed: the first one of the drill's node."""
        return next(share.ranks[0] for share in self.shares if share.name == self.node)

    def heard(self, lines: int = 1) -> bool:
        """So many lines of every rank came to this coordinator, from when it began."""
        due = [(share.name, f"rank-{rank}.out") for share in self.shares for rank in share.ranks]
        return bool(due) and all(self.timeline.lines[log] >= lines for log in due)

    def goes_on(self) -> DrillFinding:
        """Whether the run went on to its end as if nothing had been."""
        assert self.result is not None
        if self.result.status is not Status.SUCCEEDED:
            cause = self.result.failure.cause if self.result.failure else "no reason is known"
            return DrillFinding(wrong=f"the run {self.result.status.value}: {cause}")
        if self.state.attempt != 1:
            return DrillFinding(wrong=f"its ranks were started {self.state.attempt} times")
        found = (
            wrong_log(self._log(s.name, r), r, self.drill.lines)
            for s in self.shares
            for r in s.ranks
        )
        return DrillFinding(wrong=next((wrong for wrong in found if wrong), ""))

    def _log(self, node: str, rank: int) -> bytes:
        try:
            return self.folder.log(node, f"rank-{rank}.out").read_bytes()
        except FileNotFoundError:
            return b""

    # ---- the fault -------------------------------------------------------------------------------

    async def send(self, target: str, name: str) -> float:
        """A signal to a process of this run on the drill's node; the time just before.

        Raises ``ChannelLost``, ``AgentError``, ``AgentTimeout``.
        """
        fields = {
            "run": self.request.run_id,
            "node": self.node,
            "attempt": self.state.attempt,
            "epoch": self.state.epoch,
            "token": self.request.token,
            "target": target,
            "signal": name,
        }
        at = self.clock.monotonic()
        await self.tap.channels[self.node].request("signal", fields, timeout_s=QUICK_S)
        return at

    def interrupt(self) -> float:
        """Ask the run to end, as Ctrl-C does; the time just before."""
        at = self.clock.monotonic()
        self.interrupts.ask(signal.SIGINT)
        return at


@contextlib.asynccontextmanager
async def within_seconds(seconds: float, what: str) -> AsyncIterator[None]:
    """Raises ``RunFailed`` when the inside, which waits for ``what``, takes longer."""
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            yield
    except TimeoutError:
        if not timer.expired():
            raise
        late = f"{what} did not come within {seconds:g} s"
        raise RunFailed(late, id="OR-DRILL-006") from None


async def _settle_run(driving: Coroutine[Any, Any, Result]) -> Result:
    """A third interrupt must end this task, not the loop that it is in."""
    try:
        return await driving
    except Abandoned:
        raise RunFailed(
            "left before the nodes confirmed that they are clean", id="OR-DRILL-004"
        ) from None


def _drill_request(setting: Setting, drill: Drill) -> RunRequest:
    source = random.SystemRandom()
    now = datetime.fromtimestamp(setting.clock.wall()).astimezone()
    job = setting.request.job
    return replace(
        setting.request,
        run_id=new_run_id(now, f"drill-{drill.name}", source),
        token=f"{source.getrandbits(64):016x}",
        job=replace(job, values={**job.values, "lines": drill.lines}),
        budgets=drill.budgets,
    )


def ended_early(result: Result) -> Exception:
    """Why a run was over before its drill had begun."""
    failure = result.failure
    cause = failure.cause if failure else f"the run {result.status.value}"
    if failure is not None and failure.id == OCCUPIED:
        remedy = "drill when that run is over, or other nodes: --nodes EXPR"
        return BusyError(cause, id=failure.id, remedy=remedy)
    if failure is not None and result.exit_code is ExitCode.PREFLIGHT:
        return PreflightError(cause, id=failure.id, remedy=failure.remedy)
    return RunFailed(f"its run ended too soon: {cause}", id="OR-DRILL-003")
