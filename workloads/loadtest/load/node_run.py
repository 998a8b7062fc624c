"""One node's part of a load test: warm-up, the client's ceiling, then the stages."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path

import orchestrate_kit as kit

from ..base.arrivals import (
    CONSTANT,
    GAMMA,
    POISSON,
    OpenLoad,
    share_of_count,
    sweep_rates,
)
from ..base.job import Ask, Job, Target
from ..base.records import RequestRecord, read_records
from ..base.stages import NodeLoad, Stage, StageEnergy
from ..judge.evaluation import StageResult, evaluate, trials
from ..judge.failed_requests import FailedRequests
from ..judge.rate_search import next_rate
from .fleet import Fleet, LoadError, SenderError, Totals
from .settings import Settings
from .stage_watch import StageWatch
from .trivial_servers import trivial_servers

# Long enough for thousands of requests, short beside any load.
CEILING_S, CEILING_STREAMS = 2.0, 64
CEILING_TOKENS = 256
WARMUP_STREAMS = 4
SEARCH_PRECISION = 0.05
MAX_IN_FLIGHT = 4096
RECORDS, WARM_UP, LOAD = "requests.jsonl", "warm-up.jsonl", "load.json"
AGAIN = "requests-again.jsonl"
LEADS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is asked, of whom, and when if a trace says so."""

    targets: Sequence[Target]
    asks: Sequence[Ask]
    headers: Sequence[tuple[str, str]] = ()
    times_s: Sequence[float] = ()
    unique: bool = True
    server: str = ""
    own_engines: bool = False
    check: Callable[[], None] = lambda: None


@dataclass(slots=True)
class NodeRun:
    """The stages of this node; ``place`` of ``places``: which share of the load is its own.

    ``check`` of the work raises when an engine has died. ``lead``: digits in front of every prompt
    that is to be new to the server, drawn for each run; ``numbers``: how many were numbered so far.
    """

    settings: Settings
    work: Work
    output: Path
    node: str
    place: int = 0
    places: int = 1
    ceiling: float = 0.0
    warmed_up: int = 0
    stages: list[Stage] = field(default_factory=list)
    stopped: bool = False
    lead: str = field(default_factory=lambda: f"{secrets.randbelow(LEADS):04d}")
    numbers: int = 0
    _fleet: Fleet | None = None

    @property
    def records(self) -> Path:
        return self.output / RECORDS

    @property
    def load(self) -> NodeLoad:
        """What was done so far."""
        return NodeLoad(
            node=self.node,
            stages=tuple(self.stages),
            ceiling=self.ceiling,
            model=self.work.targets[0].model,
            server=self.work.server,
            settings=asdict(self.settings),
            warmed_up=self.warmed_up,
            place=self.place,
            places=self.places,
        )

    async def run(self) -> None:
        """Everything; ends early on SIGTERM or SIGINT. Raises :class:`LoadError`, `OSError`."""
        self._stop_on_signals()
        self.records.unlink(missing_ok=True)
        await self._warm_up()
        await self._measure_ceiling()
        await self._run_stages()

    async def run_again(self) -> list[RequestRecord]:
        """The first stage once more, with other prompts; it is no part of the result. Raises
        :class:`SenderError`, ``RuntimeError`` when an engine has died, ``OSError``.
        """
        self._stop_on_signals()
        path = self.output / AGAIN
        path.unlink(missing_ok=True)
        self._say("the same load once more")
        rate = None if self.settings.arrival == "concurrency" else self.settings.rate
        watch = StageWatch(self, None, 0)
        job = replace(self._stage_job(0, rate), record=str(path))
        await self._send(job, self.settings.processes, watch.see)
        if watch.failure is not None:
            raise watch.failure
        with path.open(encoding="utf-8") as file:
            return list(read_records(file, AGAIN))

    def results(self) -> list[StageResult]:
        """This node's own verdicts. Raises ``OSError``, ``RecordError``."""
        return evaluate([(self.load, self.read_records())], self.settings.terms)

    def mark(self, number: int) -> str:
        """What stands in front of a prompt that no request of this run has had."""
        return self._job().mark(number)

    def read_records(self) -> Iterator[RequestRecord]:
        """What was written down so far. Raises ``OSError``, ``RecordError``."""
        if self.records.exists():
            with self.records.open(encoding="utf-8") as file:
                yield from read_records(file, str(self.records))

    def _stop_on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)

    def _stop(self) -> None:
        self.stopped = True
        if self._fleet is not None:
            self._fleet.stop()

    # -- before the load -------------------------------------------------------------------------

    async def _warm_up(self) -> None:
        if not self.settings.warmup or self.stopped:
            return
        self._say(f"warm-up of {self.settings.warmup} requests")
        kept = self.output / WARM_UP
        kept.unlink(missing_ok=True)
        job = replace(
            self._job(),
            member=0,
            members=1,
            concurrency=min(WARMUP_STREAMS, self.settings.warmup),
            most_requests=self.settings.warmup,
            record=str(kept),
        )
        totals = await self._send(job, 1, _ignore)
        self.warmed_up = totals.completed
        self.numbers += self.settings.warmup
        if totals.failed and not self.stopped:
            raise _warm_up_failed(totals, kept)

    async def _measure_ceiling(self) -> None:
        """What this client reaches against a server that does nothing, on this machine, now."""
        processes = self.settings.processes
        with trivial_servers(min(processes, os.cpu_count() or 1)) as servers:
            job = replace(
                self._job(),
                targets=[replace(server, api=self.settings.api) for server in servers],
                headers=(),
                output_tokens=min(self.settings.output_tokens, CEILING_TOKENS),
                concurrency=CEILING_STREAMS * processes,
                duration_s=CEILING_S,
                record=os.devnull,
            )
            totals = await self._send(job, processes, _ignore)
        self.ceiling = totals.completed / max(totals.at_s, CEILING_S)
        self._say(f"this client reaches {self.ceiling:.0f} streamed requests/s by itself")

    # -- the load --------------------------------------------------------------------------------

    async def _run_stages(self) -> None:
        settings = self.settings
        if settings.arrival == "search":
            await self._search()
            return
        rates: list[float | None] = [settings.rate]
        if settings.arrival == "sweep":
            rates = list(sweep_rates(settings.rate, settings.final_rate, settings.steps))
        elif settings.arrival in {"concurrency", "trace"}:
            rates = [None]
        for stage, rate in enumerate(rates):
            if self.stopped or (self.stages and self.results()[-1].saturation):
                return  # higher rates than one that is too high say nothing
            await self._run_stage(stage, rate)

    async def _search(self) -> None:
        """Each node finds the highest rate of its own server: they need not be equal."""
        for stage in count():
            rate = next_rate(
                trials(self.results()) if self.stages else [],
                first=self.settings.rate,
                precision=SEARCH_PRECISION,
                most_trials=self.settings.steps,
            )
            if rate is None or self.stopped:
                return
            await self._run_stage(stage, rate)

    async def _run_stage(self, stage: int, rate: float | None) -> None:
        job = self._stage_job(stage, rate)
        whole = len(job.times_s) or (job.load.requests if job.load else 0)
        planned = share_of_count(whole, job.member, job.members)
        schedule_s = job.times_s[-1] if len(job.times_s) else job.duration_s
        own_rate = planned / schedule_s if planned and schedule_s else None
        watch = StageWatch(self, own_rate, planned)
        began, wall = time.monotonic(), time.time()
        self._say(f"stage {stage}: " + (f"{rate:.4g} requests/s" if rate else "load") + " begins")
        failure: RuntimeError | None = None
        energy = None
        try:
            totals, energy = await self._send_measured(job, watch.see)
            failure = watch.failure
        except SenderError as error:
            totals, failure = Totals(at_s=time.monotonic() - began), error
        self.numbers += max(whole, totals.due * job.members)
        ended_early = self.stopped or watch.saturation is not None or failure is not None
        self.stages.append(
            Stage(
                stage=stage,
                rate=own_rate,
                concurrency=job.streams(),
                schedule_s=min(schedule_s, totals.at_s) if ended_early else schedule_s,
                configured_s=schedule_s,
                planned=planned,
                wall=wall,
                whole=not ended_early,
                saturation=watch.saturation,
                failure=str(failure or ""),
                energy=energy,
            )
        )
        (self.output / LOAD).write_text(self.load.to_json(), encoding="utf-8")
        if failure is not None:
            raise failure

    async def _send_measured(
        self, job: Job, on_totals: Callable[[Totals], None]
    ) -> tuple[Totals, StageEnergy | None]:
        """A stage; what the GPUs of our own engines use in it becomes the run's energy."""
        if not self.work.own_engines:
            return await self._send(job, self.settings.processes, on_totals), None
        with kit.measured_window() as window:
            totals = await self._send(job, self.settings.processes, on_totals)
            window.count(
                requests=totals.completed,
                input_tokens=totals.prompt_tokens,
                output_tokens=totals.output_tokens,
                tokens=totals.prompt_tokens + totals.output_tokens,
            )
        return totals, _stage_energy(window)

    def _stage_job(self, stage: int, rate: float | None) -> Job:
        settings = self.settings
        job = replace(
            self._job(),
            stage=stage,
            seed=settings.seed + stage,
            duration_s=settings.duration,
            record=str(self.records),
        )
        if settings.arrival == "search":  # of this node's own server
            job = replace(job, member=0, members=1)
        if settings.arrival == "concurrency":
            return replace(job, concurrency=settings.concurrency)
        if rate is None:
            return replace(job, times_s=list(self.work.times_s))
        last = settings.final_rate if settings.arrival == "ramp" else rate
        spacing = settings.arrival if settings.arrival in {CONSTANT, GAMMA} else POISSON
        load = OpenLoad(
            spacing=spacing,
            rate=rate,
            final_rate=last,
            duration_s=settings.duration,
            burstiness=settings.burstiness,
        )
        return replace(job, load=load)

    def _job(self) -> Job:
        settings = self.settings
        return Job(
            targets=list(self.work.targets),
            asks=list(self.work.asks),
            output_tokens=settings.output_tokens,
            ignore_eos=settings.ignore_eos,
            ask_usage=settings.ask_usage,
            limit_field=settings.limit_field,
            unique=self.work.unique,
            lead=self.lead,
            first=self.numbers,
            member=self.place,
            members=self.places,
            timeout_s=settings.timeout,
            most_in_flight=MAX_IN_FLIGHT,
            headers=list(self.work.headers),
        )

    async def _send(self, job: Job, processes: int, on_totals: Callable[[Totals], None]) -> Totals:
        self._fleet = Fleet(job, processes, on_totals)
        if self.stopped:
            self._fleet.stop()
        try:
            return await self._fleet.run()
        finally:
            self._fleet = None

    def check(self) -> None:
        """Raises ``RuntimeError`` when an engine has died."""
        self.work.check()

    def end_stage(self) -> None:
        """Send nothing more of this stage."""
        if self._fleet is not None:
            self._fleet.stop()

    @staticmethod
    def _say(text: str) -> None:
        print(f"loadtest: {text}", flush=True)


def _stage_energy(window: kit.MeasuredWindow) -> StageEnergy | None:
    found = window.energy
    if found is None:
        return None
    return StageEnergy(
        gpus=len(found.gpus),
        seconds=found.seconds,
        joules=found.joules,
        peak_watts=found.peak_watts,
        problems=tuple(found.problems),
    )


def _ignore(totals: Totals) -> None:
    """Nothing is to be seen of what is not the load."""
    del totals


def _warm_up_failed(totals: Totals, kept: Path) -> LoadError:
    failures = FailedRequests()
    with kept.open(encoding="utf-8") as file:
        for record in read_records(file, WARM_UP):
            if record.failure:
                failures.add(record)
    what = f"{totals.failed} of {totals.due} warm-up requests failed, so no load is sent"
    return LoadError(f"{what}: {failures.cause}", failures.id)
