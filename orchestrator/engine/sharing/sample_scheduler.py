"""Leases samples of divisible work to workers until each has exactly one output."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from orchestrator.adapters.store.data_set import DataSet
from orchestrator.adapters.store.merge import merge_samples, remove_merged
from orchestrator.core.base.errors import OrchestrateError
from orchestrator.core.model.plan import Plan
from orchestrator.core.model.request import SampleSet
from orchestrator.core.run.events import Divided, Progressed, RankExited, Reported
from orchestrator.core.run.state import RunState
from orchestrator.core.sharing.leases import LeaseGrant, Worker
from orchestrator.engine.sharing.lease_sender import LeaseSender, Message
from orchestrator.engine.sharing.rank_exchange import Exchange
from orchestrator.engine.sharing.rates import recall_began, remember_began
from orchestrator.engine.sharing.sample_account import SampleAccount
from orchestrator.engine.support.context import Post, RunContext
from orchestrator.parsing.replies.sample_records import LeaseAck

TICK_S = 0.2
# Between two looks at what workers said: what came meanwhile is read together. To look at what
# thousands of them said takes a while, and there is more to do in this process.
PASS_S, PASS_TIMES = 0.01, 4.0
TELL_EVERY_S = 1.0
# The last words of a worker that ended may be on their way still.
LAST_WORDS_S = 0.3
# So long workers have to come to their own end once nothing is left to do; those that are in the
# middle of something that nobody needs any more, less.
EXIT_S, NEEDLESS_S = 20.0, 2.0
DRAIN_S = 60.0
# After a takeover: what workers said meanwhile comes first, or it would be done again.
CATCH_UP_S = 1.0
FEED_BYTES = 4 * 1024 * 1024


async def divide(exchange: Exchange, context: RunContext, post: Post) -> None:
    """Serve leases until all samples are settled or nobody is left to work on them.

    Raises ``OrchestrateError`` or ``OSError`` when the coordinator's own part fails; the work is
    over then, too.
    """
    samples = exchange.state.request.samples
    assert samples is not None  # no other work is divided
    division = SampleScheduler(exchange, context, post, samples)
    try:
        await division.run()
    except (OrchestrateError, OSError):
        post(division.standing(final=True))
        raise
    finally:
        await division.close()


@dataclass(slots=True)
class _Presence:
    """One rank of this attempt. ``gone_at``: when it was seen to have ended; ``left``: its last
    words are here, and what it held is back.
    """

    gone_at: float | None = None
    left: bool = False
    told_end: bool = False


class SampleScheduler:
    """One attempt's service: hears what workers say, and hands out what is left to do."""

    def __init__(
        self, exchange: Exchange, context: RunContext, post: Post, samples: SampleSet
    ) -> None:
        state = exchange.state
        self._exchange = exchange
        self._context = context
        self._post = post
        self._samples = samples
        self._epoch = state.epoch
        self._attempt = state.attempt
        self._present: dict[Worker, _Presence] = {}
        self._account = SampleAccount(
            context,
            state.request,
            samples,
            state.attempt,
            belongs=self._present.__contains__,
            took=self._on_ack,
        )
        self._ledger, self._leases = self._account.ledger, self._account.leases
        self._feeder = LeaseSender(exchange, self._cut_off)
        self._data: DataSet | None = None
        self._merging: asyncio.Task[None] | None = None
        self._seen: RunState | None = None
        self._told_at, self._told = 0.0, self.standing()
        self._words = 0
        self._idle_since: float | None = None

    async def run(self) -> None:
        """From what is on disk to the end."""
        folder = self._context.folder
        await asyncio.to_thread(remove_merged, folder.artifacts)
        if self._samples.file:
            self._data = await asyncio.to_thread(DataSet.open, self._samples, folder.work)
        self._notice_ends()
        await self._account.hear()
        if self._exchange.state.resumed:
            await self._catch_up()
        self._tell()
        took_s = 0.0
        while not self._over():
            await self._exchange.wait(TICK_S)
            await asyncio.sleep(max(PASS_S, PASS_TIMES * took_s))
            began = self._account.now
            await self._account.hear()
            self._notice_ends()
            self._hand_out()
            self._feeder.check()
            if self._account.now - self._told_at >= TELL_EVERY_S and self.standing() != self._told:
                self._tell()
            took_s = min(TICK_S, self._account.now - began)
        await self._conclude()

    async def close(self) -> None:
        """End what is under way. Never raises."""
        await self._feeder.close()
        if self._merging is not None:
            await asyncio.gather(self._merging, return_exceptions=True)
        if self._data is not None:
            self._data.close()

    def standing(self, *, final: bool = False) -> Divided:
        """Where the work stands."""
        ledger = self._ledger
        return Divided(
            total=ledger.total,
            done=ledger.done,
            failed=ledger.failed,
            duplicates=ledger.duplicates,
            conflicts=ledger.conflicts,
            final=final,
        )

    # ---- who is there ---------------------------------------------------------------------------

    @property
    def _plan(self) -> Plan:
        plan = self._exchange.state.plan
        assert plan is not None  # there was a launch
        return plan

    def _notice_ends(self) -> None:
        now, state = self._account.now, self._exchange.state
        if state is not self._seen:
            self._seen = state
            ended = {(e.node, e.rank) for e in state.endings if isinstance(e, RankExited)}
            for share in self._plan.nodes:
                node = state.nodes[share.name]
                over = bool(node.lost or node.problem or node.concluded)
                for worker in ((share.name, rank) for rank in share.ranks):
                    presence = self._present.setdefault(worker, _Presence())
                    if presence.gone_at is None and (over or worker in ended):
                        presence.gone_at = now
        for worker, presence in self._present.items():
            gone_at = presence.gone_at
            if gone_at is not None and not presence.left and now - gone_at >= LAST_WORDS_S:
                presence.left = True
                self._account.fail_groups(self._leases.leave(worker))

    def _cut_off(self, worker: Worker, why: str) -> None:
        """Nothing reaches the worker any more; what it still says counts."""
        what = f"cannot deliver samples ({why}); no further work assigned"
        self._context.note(f"{worker[0]}: rank {worker[1]}: {what}")
        self._account.ready.discard(worker)
        self._account.fail_groups(self._leases.leave(worker))

    def _on_ack(self, worker: Worker, record: LeaseAck) -> None:
        lost, foreign = self._feeder.took(worker, record)
        for word in lost:
            self._account.fail_groups(self._leases.give_back(worker, word.groups))
            if not word.groups:
                self._present[worker].told_end = False  # if it was that, it is told again
        self._leases.took(worker, foreign, self._account.now)

    async def _catch_up(self) -> None:
        """After a takeover: until the nodes are connected again and have told what was missed."""
        account = self._account
        account.rates.began = recall_began(self._context, self._attempt)
        deadline = account.now + self._exchange.state.request.budgets.connect_s
        while not self._connected() and account.now < deadline:
            await self._exchange.wait(TICK_S)
        deadline = account.now + CATCH_UP_S
        while account.now < deadline:
            await self._exchange.wait(TICK_S)
            self._notice_ends()
            await account.hear()

    def _connected(self) -> bool:
        planned = self._exchange.state.planned()
        return all(node.connected or node.lost or node.problem for _, node in planned)

    def _drained(self) -> bool:
        """Whether every word of ranks that ended is here."""
        planned = self._exchange.state.planned()
        return all(node.lost or node.collected or node.swept for _, node in planned)

    # ---- what they get --------------------------------------------------------------------------

    def _hand_out(self) -> None:
        now = self._account.now
        self._refuse()
        if self._ledger.settled:
            self._tell_end()
            if self._merging is None and self._ledger.complete:
                self._merging = asyncio.create_task(self._merge())
            return
        if self._exchange.state.halted:
            return
        self._account.fail_groups(self._leases.expire(now))
        for grant in self._leases.assign(now):
            if self._account.rates.began is None:
                self._account.rates.began = now
                remember_began(self._context, self._attempt)
            self._lease(grant)
        for grant in self._leases.recalls():
            self._say(grant.worker, {"type": "recall", "groups": grant.groups})

    def _lease(self, grant: LeaseGrant) -> None:
        """In as many feeds as their size asks for."""
        part: list[int] = []
        size = 0
        for group in grant.groups:
            more = self._size_of(group)
            if part and size + more > FEED_BYTES:
                self._send_lease(grant.worker, part)
                part, size = [], 0
            part.append(group)
            size += more
        self._send_lease(grant.worker, part)

    def _size_of(self, group: int) -> int:
        samples = self._ledger.samples_of(group)
        return self._data.size(samples[0], len(samples)) if self._data is not None else 0

    def _send_lease(self, worker: Worker, groups: list[int]) -> None:
        word = self._next_id()
        entries = b",".join(self._entry(group) for group in groups)
        content = b'{"type":"lease","lease":"%s","groups":[%s]}' % (word.encode(), entries)
        self._feeder.send(worker, Message(word, content, tuple(groups)))

    def _entry(self, group: int) -> bytes:
        """One group as the kit reads it; lines of the data set are JSON already."""
        samples = self._ledger.samples_of(group)
        entry = b'{"group":%d,"first":%d,"count":%d' % (group, samples[0], len(samples))
        if self._data is None:
            return entry + b"}"
        return entry + b',"data":[' + b",".join(self._data.lines(samples[0], len(samples))) + b"]}"

    def _refuse(self) -> None:
        """Workers whose outputs could not be taken end with the reason, for all to see."""
        for worker, why in self._account.unfit.items():
            self._send_final(worker, {"type": "refused", "reason": why})

    def _tell_end(self) -> None:
        for worker in self._account.ready:
            self._send_final(worker, {"type": "end"})

    def _send_final(self, worker: Worker, said: dict[str, object]) -> None:
        presence = self._present[worker]
        if not presence.told_end and presence.gone_at is None:
            presence.told_end = True
            self._say(worker, said)

    def _say(self, worker: Worker, said: dict[str, object]) -> None:
        word = self._next_id()
        self._feeder.send(worker, Message(word, json.dumps({**said, "lease": word}).encode()))

    def _next_id(self) -> str:
        self._words += 1
        return f"{self._epoch}.{self._words}"

    # ---- where it stands ------------------------------------------------------------------------

    def _tell(self) -> None:
        self._told_at, self._told = self._account.now, self.standing()
        self._post(self._told)
        head = self._plan.head
        self._post(
            Progressed(
                node=head.name,
                rank=head.ranks[0],
                done=self._told.done,
                total=self._told.total,
                unit="samples",
                fields={"per_s": round(self._account.rates.per_s(), 3)},
            )
        )

    def _over(self) -> bool:
        """Whether there is nothing more to wait for."""
        alive = [worker for worker, presence in self._present.items() if not presence.left]
        if alive and not self._ledger.settled:
            self._idle_since = None
            return False
        now = self._account.now
        if self._idle_since is None:
            self._idle_since = now
        waited = now - self._idle_since
        if not alive:
            return self._drained() or waited > DRAIN_S
        needless = all(self._leases.holds(worker) for worker in alive)
        return waited > (NEEDLESS_S if needless else EXIT_S)

    def _stuck(self) -> list[Worker]:
        """Who still works on something, although there is nothing left to do."""
        if not self._ledger.settled:
            return []
        alive = (worker for worker, presence in self._present.items() if not presence.left)
        return [worker for worker in alive if self._leases.holds(worker)]

    async def _conclude(self) -> None:
        """The last words, the merged outputs if there are all, the figures, the end."""
        await self._account.hear()
        for worker in self._stuck():
            what = "still running after its samples were completed elsewhere: terminating"
            self._context.note(f"{worker[0]}: rank {worker[1]} {what}")
        if self._merging is None and self._ledger.complete:
            self._merging = asyncio.create_task(self._merge())
        if self._merging is not None:
            await self._merging
        if not self._ledger.complete:
            await asyncio.to_thread(remove_merged, self._context.folder.artifacts)
        head = self._plan.head
        for rate in self._account.rates.figures(self._ledger.latencies()):
            self._post(
                Reported(
                    node=head.name,
                    rank=head.ranks[0],
                    name=rate.name,
                    value=rate.value,
                    unit=rate.unit,
                    step=None,
                )
            )
        self._post(self.standing(final=True))

    async def _merge(self) -> None:
        folder = self._context.folder.artifacts
        await asyncio.to_thread(merge_samples, self._ledger, self._account.sources, folder)
