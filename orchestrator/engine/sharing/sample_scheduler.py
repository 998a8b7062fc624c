"""Serves divisible work: reads what workers say, asks ``core.sharing.sample_machine`` what follows,
and does it. Clocks, files, feeds and queues are here; every decision is there.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from orchestrator.adapters.store.data_set import DataSet
from orchestrator.adapters.store.merge import merge_samples, remove_merged
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.model.load import Scenario
from orchestrator.core.model.request import SampleSet
from orchestrator.core.run.events import Divided, RankExited
from orchestrator.core.run.kit_reports import Progressed, Reported
from orchestrator.core.run.state import RunState
from orchestrator.core.sharing.leases import Worker
from orchestrator.core.sharing.ledger import OutputLocation
from orchestrator.core.sharing.sample_machine import SampleMachine, SampleTerms
from orchestrator.core.sharing.sample_protocol import (
    AckMatched,
    Finish,
    ForwardAnswer,
    ForwardFirstToken,
    KeepBegin,
    KeepIdentity,
    LastRecordsRead,
    MatchAck,
    MergeOutputs,
    NodesSeen,
    Output,
    OutputsMerged,
    RecordRead,
    ReportRate,
    ReportStanding,
    SampleAction,
    SampleEvent,
    SayNote,
    SendEnd,
    SendLease,
    SendRecall,
    SendRefusal,
    Tick,
    Undeliverable,
)
from orchestrator.engine.sharing.lease_sender import LeaseSender, Message
from orchestrator.engine.sharing.load_desk import LoadDesk
from orchestrator.engine.sharing.rank_exchange import Exchange, ExchangeReader
from orchestrator.engine.sharing.sample_memory import SampleMemory, digest_configuration
from orchestrator.engine.support.context import Post, RunContext
from orchestrator.parsing.replies.sample_records import parse_sample_record

TICK_S = 0.2
# Between two looks at what workers said: what came meanwhile is read together. To look at what
# thousands of them said takes a while, and there is more to do in this process.
PASS_S, PASS_TIMES = 0.01, 4.0
LINES_PER_SLICE = 200
FEED_BYTES = 4 * 1024 * 1024
VALID = "loadgen_valid"


async def divide(exchange: Exchange, context: RunContext, post: Post) -> None:
    """Serve leases until all samples are settled or nobody is left to work on them.

    Raises ``OrchestrateError`` or ``OSError`` when the coordinator's own part fails; the work is
    over then, too.
    """
    samples = exchange.state.request.samples
    assert samples is not None  # no other work is divided
    scheduler = SampleScheduler(exchange, context, post, samples)
    try:
        await scheduler.serve()
    except (OrchestrateError, OSError):
        scheduler.report_final()
        raise
    finally:
        await scheduler.close()


class SampleScheduler:
    """One attempt's service."""

    def __init__(
        self, exchange: Exchange, context: RunContext, post: Post, samples: SampleSet
    ) -> None:
        state = exchange.state
        configuration = digest_configuration(state.request)
        self._exchange = exchange
        self._context = context
        self._post = post
        self._samples = samples
        self._attempt = state.attempt
        self._epoch = state.epoch
        self._memory = SampleMemory(context, configuration)
        self._reader = ExchangeReader(context.folder)
        self._sources: dict[Path, int] = {}
        resumed, load = state.resumed, state.request.load
        terms = SampleTerms(
            total=0 if load else samples.total,
            group=load.group(samples.group) if load else samples.group,
            attempt=state.attempt,
            configuration=configuration,
            identity=self._memory.recall_identity(),
            began=self._memory.recall_began(state.attempt) if resumed else None,
            catch_up_s=state.request.budgets.connect_s if resumed else 0.0,
            issued=load is not None,
            paced=load is not None and load.scenario is not Scenario.OFFLINE,
        )
        self.machine = SampleMachine(terms, self._now)
        self._sender = LeaseSender(exchange, self._cut_off)
        self._data: DataSet | None = None
        self._load = (
            LoadDesk(
                state.request,
                load,
                context.folder.loadgen(state.attempt),
                exchange.changed.set,
                self._locate,
            )
            if load
            else None
        )
        self._invalid = ""
        self._merging: list[asyncio.Task[None]] = []
        self._seen: list[RunState] = []
        self._messages = 0
        self._finished = False

    @property
    def sources(self) -> list[Path]:
        """The files that places in the ledger count."""
        return list(self._sources)

    @property
    def _now(self) -> float:
        return self._context.clock.monotonic()

    async def serve(self) -> None:
        """From what is on disk to the end."""
        folder = self._context.folder
        await asyncio.to_thread(remove_merged, folder.artifacts)
        if self._samples.file:
            self._data = await asyncio.to_thread(DataSet.open, self._samples, folder.work)
        if self._load is not None:
            await self._load.begin(self._now)
        took_s = 0.0
        while not self._finished:
            began = self._now
            self.see_nodes()
            await self.read_records()
            self._attend_load()
            self._take_event(Tick())
            self._sender.check()
            took_s = min(TICK_S, self._now - began)
            if not self._finished:
                await self._exchange.wait(TICK_S)
                await asyncio.sleep(max(PASS_S, PASS_TIMES * took_s))
        await self._conclude()

    def report_final(self) -> None:
        """Where the work stands, for good."""
        self._report_standing(self.machine.standing(final=True))

    async def close(self) -> None:
        """End what is under way. Never raises."""
        await self._sender.close()
        if self._load is not None:
            await self._load.close()
        await asyncio.gather(*self._merging, return_exceptions=True)
        if self._data is not None:
            self._data.close()

    async def _conclude(self) -> None:
        """The last words, the merged outputs if there are all, the figures, the end."""
        await self.read_records()
        self._take_event(LastRecordsRead())
        await asyncio.gather(*self._merging)
        await self._finish_load()
        if not self.machine.ledger.complete:
            await asyncio.to_thread(remove_merged, self._context.folder.artifacts)
        self._take_event(OutputsMerged())

    async def _finish_load(self) -> None:
        """LoadGen's own verdict and figures, if it asked for the samples."""
        if self._load is None:
            return
        verdict = await self._load.finish()
        self._invalid = verdict.invalid
        self._report_figure(VALID, float(not verdict.invalid), "")
        for name, (value, unit) in verdict.figures.items():
            self._report_figure(name, value, unit)

    # ---- what happens ---------------------------------------------------------------------------

    def _take_event(self, event: SampleEvent) -> None:
        for action in self.machine.step(event, self._now):
            self._perform(action)

    async def read_records(self) -> None:
        """Take in what is new on disk."""
        ledger = self.machine.ledger
        for number, line in enumerate(self._reader.read(), 1):
            record = parse_sample_record(line.line, ledger.total, ledger.groups)
            source = 0
            if isinstance(record, Output):
                source = self._sources.setdefault(line.path, len(self._sources))
            place = OutputLocation(source, line.offset, len(line.line))
            self._take_event(RecordRead(line.attempt, (line.node, line.rank), record, place))
            if number % LINES_PER_SLICE == 0:
                await asyncio.sleep(0)

    def see_nodes(self) -> None:
        """Take in how the nodes are, if the run has moved on."""
        state = self._exchange.state
        if self._seen and self._seen[-1] is state:
            return
        self._seen = [state]
        ended = {(e.node, e.rank) for e in state.endings if isinstance(e, RankExited)}
        gone: dict[Worker, bool] = {}
        for name, node in state.planned():
            over = bool(node.lost or node.problem or node.concluded)
            for rank in state.require_plan().node(name).ranks:
                gone[name, rank] = over or (name, rank) in ended
        nodes = [node for _, node in state.planned()]
        self._take_event(
            NodesSeen(
                gone=gone,
                connected=all(node.connected or node.lost or node.problem for node in nodes),
                drained=all(node.lost or node.collected or node.swept for node in nodes),
                halted=state.halted,
            )
        )

    def _attend_load(self) -> None:
        if self._load is not None and not self._exchange.state.halted:
            for event in self._load.attend(self.machine, self._now):
                self._take_event(event)

    def _locate(self, sample: int) -> tuple[Path, OutputLocation] | None:
        """The accepted output of a sample; None if there is none."""
        place = self.machine.ledger.place(sample)
        return None if place is None else (self.sources[place.source], place)

    def _cut_off(self, worker: Worker, why: str) -> None:
        self._take_event(Undeliverable(worker, why))

    # ---- what is done ---------------------------------------------------------------------------

    def _perform(self, action: SampleAction) -> None:
        match action:
            case SendLease() | SendRecall() | SendEnd() | SendRefusal():
                self._send(action)
            case MatchAck(worker=worker, ack=ack):
                lost, foreign = self._sender.took(worker, ack)
                unseen = tuple(message.groups for message in lost)
                self._take_event(AckMatched(worker, unseen, foreign))
            case KeepIdentity(node=node, identity=identity):
                self._memory.keep_identity(node, identity)
            case KeepBegin():
                self._memory.keep_began(self._attempt)
            case MergeOutputs():
                self._merging.append(asyncio.create_task(self._merge_outputs()))
            case ForwardFirstToken() | ForwardAnswer():
                if self._load is not None:
                    self._load.hear(action, self._now)
            case _:
                self._report(action)

    def _report(self, action: ReportStanding | ReportRate | SayNote | Finish) -> None:
        match action:
            case ReportStanding():
                self._report_standing(action)
            case ReportRate(rate=rate):
                self._report_figure(rate.name, rate.value, rate.unit)
            case SayNote(text=text):
                self._context.note(text)
            case Finish():
                self._finished = True

    def _report_figure(self, name: str, value: float, unit: str) -> None:
        head = self._exchange.state.require_plan().head
        self._post(
            Reported(
                node=head.name, rank=head.ranks[0], name=name, value=value, unit=unit, step=None
            )
        )

    def _report_standing(self, standing: ReportStanding) -> None:
        self._post(
            Divided(
                total=standing.total,
                done=standing.done,
                failed=standing.failed,
                duplicates=standing.duplicates,
                conflicts=standing.conflicts,
                final=standing.final,
                invalid=self._invalid,
            )
        )
        if standing.final or not standing.total:
            return
        head = self._exchange.state.require_plan().head
        self._post(
            Progressed(
                node=head.name,
                rank=head.ranks[0],
                done=standing.done,
                total=standing.total,
                unit="samples",
                fields={"per_s": standing.per_s, "leased": standing.leased},
            )
        )

    async def _merge_outputs(self) -> None:
        folder = self._context.folder.artifacts
        await asyncio.to_thread(merge_samples, self.machine.ledger, self.sources, folder)

    # ---- what workers get -----------------------------------------------------------------------

    def _send(self, action: SendLease | SendRecall | SendEnd | SendRefusal) -> None:
        match action:
            case SendLease(worker=worker, groups=groups):
                for part in self._cut_to_size(groups):
                    self._send_lease(worker, part)
            case SendRecall(worker=worker, groups=groups):
                self._send_message(worker, {"type": "recall", "groups": groups})
            case SendEnd(worker=worker):
                self._send_message(worker, {"type": "end"})
            case SendRefusal(worker=worker, reason=reason):
                self._send_message(worker, {"type": "refused", "reason": reason})

    def _cut_to_size(self, groups: tuple[int, ...]) -> list[list[int]]:
        """The same in as many feeds as their size asks for."""
        parts: list[list[int]] = [[]]
        size = 0
        for group in groups:
            more = self._size_of(group)
            if parts[-1] and size + more > FEED_BYTES:
                parts.append([])
                size = 0
            parts[-1].append(group)
            size += more
        return parts

    def _size_of(self, group: int) -> int:
        if self._data is None:
            return 0
        data = self._data
        return sum(data.size(first, count) for first, count in self._places_of(group))

    def _send_lease(self, worker: Worker, groups: list[int]) -> None:
        lease = self._next_id()
        entries = b",".join(self._entry_of(group) for group in groups)
        content = b'{"type":"lease","lease":"%s","groups":[%s]}' % (lease.encode(), entries)
        self._sender.send(worker, Message(lease, content, tuple(groups)))

    def _entry_of(self, group: int) -> bytes:
        """One group as the kit reads it; lines of the data set are JSON already."""
        samples = self.machine.ledger.samples_of(group)
        places = self._places_of(group)
        entry = b'{"group":%d,"first":%d,"count":%d' % (group, samples[0], len(samples))
        if self._load is not None:
            entry += b',"of":[%s]' % b",".join(b"%d" % index for index, _ in places)
        if self._data is not None:
            lines = (line for place in places for line in self._data.lines(*place))
            entry += b',"data":[' + b",".join(lines) + b"]"
        return entry + b"}"

    def _places_of(self, group: int) -> list[tuple[int, int]]:
        """(first, count) in the data set of what a group asks for, in its order."""
        samples = self.machine.ledger.samples_of(group)
        if self._load is None:
            return [(samples[0], len(samples))]
        return [(index, 1) for index in self._load.indices(samples[0], len(samples))]

    def _send_message(self, worker: Worker, said: dict[str, object]) -> None:
        lease = self._next_id()
        content = json.dumps({**said, "lease": lease}).encode()
        self._sender.send(worker, Message(lease, content))

    def _next_id(self) -> str:
        self._messages += 1
        return f"{self._epoch}.{self._messages}"
