"""The service of divisible work, decided: ``step(event, now)`` says what to do. No clock, no I/O.

The same events at the same times lead to the same actions, so an attempt can be replayed. Unlike
that of a run, this state is changed in place: the ledger of a million samples has 50 MB, and an
answer must not cost more than its own sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.core.sharing.admission import Admission, Identity
from orchestrator.core.sharing.leases import MAX_RETURNS, Leases, Worker
from orchestrator.core.sharing.ledger import Acceptance, Ledger
from orchestrator.core.sharing.sample_protocol import (
    AckMatched,
    Finish,
    FirstToken,
    ForwardAnswer,
    ForwardFirstToken,
    IssueEnded,
    KeepBegin,
    KeepIdentity,
    LastRecordsRead,
    LeaseAck,
    MatchAck,
    MergeOutputs,
    NodesSeen,
    Output,
    OutputsMerged,
    Ready,
    RecordRead,
    ReportRate,
    ReportStanding,
    SampleAction,
    SampleEvent,
    SampleFailed,
    SamplesIssued,
    SayNote,
    SendEnd,
    SendLease,
    SendRecall,
    SendRefusal,
    Tick,
    Undeliverable,
    Worked,
)
from orchestrator.core.sharing.sample_rates import DIVISION, Rate, SampleRates

MAX_COMPLAINTS = 20
REPORT_EVERY_S = 1.0
# The last words of a worker that ended may be on their way still.
LAST_WORDS_S = 0.3
# So long workers have to come to their own end once nothing is left to do; those that are in the
# middle of something that nobody needs any more, less.
EXIT_S, NEEDLESS_S = 20.0, 2.0
DRAIN_S = 60.0
# After a takeover: what workers said meanwhile comes first, or it would be done again.
CATCH_UP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleTerms:
    """What an attempt begins with. ``configuration``: what workers must have been started with;
    ``identity`` and ``began`` are kept from before, if there is a before. ``catch_up_s``: after a
    takeover, how long the nodes have to be connected again; 0 for an attempt of our own.
    ``issued``: a load generator asks for samples while the work goes on, and hears of each;
    ``paced``: at times of its own choice, so that workers also wait.
    """

    total: int
    group: int
    attempt: int
    configuration: str
    identity: Identity | None = None
    began: float | None = None
    catch_up_s: float = 0.0
    issued: bool = False
    paced: bool = False


class _Presence:
    """One rank of this attempt. ``gone_at``: when it was seen to have ended; ``left``: its last
    words are here, and what it held is back. ``cut``: nothing reaches it.
    """

    __slots__ = ("cut", "gone_at", "left", "sent_end")

    def __init__(self) -> None:
        self.gone_at: float | None = None
        self.left = self.cut = self.sent_end = False

    @property
    def reachable(self) -> bool:
        return self.gone_at is None and not self.cut


class SampleMachine:
    """One attempt. ``ready`` are the workers that said what they are, and fit; ``unfit`` those that
    do not, and why.
    """

    def __init__(self, terms: SampleTerms, now: float) -> None:
        self.ledger = Ledger(terms.total, terms.group)
        self.leases = Leases(self.ledger, exclusive=terms.issued)
        self.rates = SampleRates()
        self.rates.began = terms.began
        self.ready: set[Worker] = set()
        self.unfit: dict[Worker, str] = {}
        self.warm_up_per_s: dict[Worker, float] = {}
        self._terms = terms
        self._admission = Admission(terms.configuration, terms.identity)
        self._presences: dict[Worker, _Presence] = {}
        self._nodes = NodesSeen({}, connected=False, drained=False, halted=False)
        self._connect_by = now + terms.catch_up_s
        self._catch_up_by = None if terms.catch_up_s else now
        self._reported: ReportStanding | None = None
        self._reported_at = now
        self._idle_since: float | None = None
        self._complaints = 0
        self._merging = False
        self._more_to_come = terms.issued
        self._now = now

    def step(self, event: SampleEvent, now: float) -> tuple[SampleAction, ...]:
        """Take in ``event``; what to do, in this order. ``now`` is any monotonic clock."""
        self._now = now
        match event:
            case RecordRead():
                return tuple(self._take_line(event))
            case NodesSeen():
                return tuple(self._see_nodes(event))
            case AckMatched():
                return tuple(self._take_matched(event))
            case Undeliverable():
                return tuple(self._cut_off(event))
            case SamplesIssued(count=count):
                self.leases.extend(self.ledger.extend(count))
                return ()
            case IssueEnded():
                self._more_to_come = False
                return ()
            case Tick():
                return tuple(self._act())
            case LastRecordsRead():
                return tuple(self._end_work())
            case OutputsMerged():
                return (*map(ReportRate, self._figures()), self.standing(final=True))

    @property
    def starting(self) -> int:
        """How many workers have not said yet what they are."""
        known = self.ready | self.unfit.keys()
        return sum(p.reachable and w not in known for w, p in self._presences.items())

    @property
    def _settled(self) -> bool:
        """Nothing is left to do, nor will more come."""
        return self.ledger.settled and not self._more_to_come

    def standing(self, *, final: bool = False) -> ReportStanding:
        """Where the work stands."""
        ledger = self.ledger
        left = ledger.total - ledger.done - ledger.failed
        return ReportStanding(
            total=ledger.total,
            done=ledger.done,
            failed=ledger.failed,
            duplicates=ledger.duplicates,
            conflicts=ledger.conflicts,
            per_s=round(self.rates.per_s(), 3),
            leased=min(left, self.leases.assigned * ledger.group),
            final=final,
        )

    # ---- what workers say -----------------------------------------------------------------------

    def _take_line(self, line: RecordRead) -> Iterator[SampleAction]:
        present = line.attempt == self._terms.attempt
        record = line.record
        if self._terms.issued and not present:
            return  # what was asked for then is not what is asked for now
        if present and line.worker not in self._presences:
            yield from self._complain(line, "it is no rank of this node")
        elif isinstance(record, str):
            yield from self._complain(line, record)
        elif isinstance(record, Ready):
            yield from self._take_ready(line, record, present=present)
        elif not self._admission.fits(line):
            return  # it was complained about when it said what it is
        elif isinstance(record, Output):
            yield from self._take_output(line, record, present=present)
        elif present:
            yield from self._take_progress(line, record)

    def _take_ready(
        self, line: RecordRead, record: Ready, *, present: bool
    ) -> Iterator[SampleAction]:
        known = self._admission.identity
        mismatch = self._admission.mismatch_of(line, record)
        first = self._admission.identity
        if first is not None and first is not known:
            yield KeepIdentity(first.node, first.identity)
        if mismatch:
            yield from self._complain(line, f"{mismatch}: its outputs do not count")
            if present:
                self.unfit[line.worker] = mismatch
        elif present and self._presences[line.worker].reachable:
            self.ready.add(line.worker)
            self.warm_up_per_s[line.worker] = record.per_s
            self.leases.join(line.worker, self._now, record.per_s)

    def _take_output(
        self, line: RecordRead, output: Output, *, present: bool
    ) -> Iterator[SampleAction]:
        group = self.ledger.group_of(output.sample)
        was_open = not self.ledger.is_settled(group)
        answer = self.ledger.accept(output.sample, output.digest, line.place, output.seconds)
        if answer is Acceptance.CONFLICT:
            what = f"its output of sample {output.sample} differs from the first"
            yield from self._complain(line, what)
        if answer is Acceptance.ACCEPTED and self._terms.issued:
            yield ForwardAnswer(output.sample, output.amounts)
        if was_open and self.ledger.is_settled(group):
            self.leases.settle(group, line.worker if present else None)
        if present:
            accepted = answer is Acceptance.ACCEPTED
            self.leases.heard(line.worker, self._now)
            self.rates.count_output(line.worker, output.amounts, accepted=accepted, now=self._now)

    def _take_progress(
        self, line: RecordRead, record: LeaseAck | FirstToken | Worked | SampleFailed
    ) -> Iterator[SampleAction]:
        self.leases.heard(line.worker, self._now)
        match record:
            case LeaseAck():
                yield MatchAck(line.worker, record)
            case FirstToken(sample=sample):
                if self._terms.issued:
                    yield ForwardFirstToken(sample)
            case Worked(groups=groups, busy_s=busy_s):
                self.rates.count_busy(line.worker, busy_s)
                lost = self.leases.worked(line.worker, groups, busy_s, self._now)
                yield from self._fail_groups(lost)
            case SampleFailed(sample=sample, reason=reason):
                yield from self._complain(line, f"sample {sample} failed: {reason}")
                yield from self._fail_sample(sample, line.worker)

    def _take_matched(self, matched: AckMatched) -> Iterator[SampleAction]:
        for groups in matched.unseen:
            yield from self._fail_groups(self.leases.give_back(matched.worker, groups))
            if not groups:
                self._presences[matched.worker].sent_end = False  # if it was that, it is repeated
        self.leases.took(matched.worker, matched.foreign, self._now)

    # ---- who is there ---------------------------------------------------------------------------

    def _see_nodes(self, seen: NodesSeen) -> Iterator[SampleAction]:
        self._nodes = seen
        for worker, gone in seen.gone.items():
            presence = self._presences.setdefault(worker, _Presence())
            if gone and presence.gone_at is None:
                presence.gone_at = self._now
        yield from self._release_gone()

    def _release_gone(self) -> Iterator[SampleAction]:
        for worker, presence in self._presences.items():
            gone_at = presence.gone_at
            if gone_at is not None and not presence.left and self._now - gone_at >= LAST_WORDS_S:
                presence.left = True
                yield from self._fail_groups(self.leases.leave(worker))

    def _cut_off(self, cut: Undeliverable) -> Iterator[SampleAction]:
        """What it still says counts."""
        node, rank = cut.worker
        what = f"cannot deliver samples ({cut.reason}); no further work assigned"
        yield SayNote(f"{node}: rank {rank}: {what}")
        self._presences[cut.worker].cut = True
        self.ready.discard(cut.worker)
        yield from self._fail_groups(self.leases.leave(cut.worker))

    # ---- what they get --------------------------------------------------------------------------

    def _act(self) -> Iterator[SampleAction]:
        yield from self._release_gone()
        if self._is_catching_up():
            return
        yield from self._hand_out()
        standing = self.standing()
        before = self._reported
        due = self._now - self._reported_at >= REPORT_EVERY_S
        if before is None or (due and _counts(standing) != _counts(before)):
            self._reported, self._reported_at = standing, self._now
            yield standing
        if self._is_over():
            yield Finish()

    def _is_catching_up(self) -> bool:
        """After a takeover: until the nodes are connected again and what they said is here."""
        if self._catch_up_by is None:
            if not self._nodes.connected and self._now < self._connect_by:
                return True
            self._catch_up_by = self._now + CATCH_UP_S
        return self._now < self._catch_up_by

    def _hand_out(self) -> Iterator[SampleAction]:
        for worker, reason in self.unfit.items():
            if self._may_end(worker):
                yield SendRefusal(worker, reason)
        if self._settled:
            yield from (SendEnd(worker) for worker in self.ready if self._may_end(worker))
            yield from self._merge_once()
            return
        if self._nodes.halted:
            return
        yield from self._fail_groups(self.leases.expire(self._now))
        for grant in self.leases.assign(self._now):
            if self.rates.began is None:
                self.rates.began = self._now
                yield KeepBegin()
            yield SendLease(grant.worker, grant.groups)
        for grant in self.leases.recalls():
            yield SendRecall(grant.worker, grant.groups)

    def _may_end(self, worker: Worker) -> bool:
        """Whether its last message is due; it is then taken to be sent."""
        presence = self._presences[worker]
        due = not presence.sent_end and presence.gone_at is None
        presence.sent_end = presence.sent_end or due
        return due

    def _merge_once(self) -> Iterator[SampleAction]:
        complete = self.ledger.complete and not self._more_to_come
        if complete and not self._merging:
            self._merging = True
            yield MergeOutputs()

    # ---- the end --------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        """Whether there is nothing more to wait for."""
        alive = self._alive()
        if alive and not self._settled:
            self._idle_since = None
            return False
        if self._idle_since is None:
            self._idle_since = self._now
        waited = self._now - self._idle_since
        if not alive:
            return self._nodes.drained or waited > DRAIN_S
        needless = all(self.leases.holds(worker) for worker in alive)
        return waited > (NEEDLESS_S if needless else EXIT_S)

    def _alive(self) -> list[Worker]:
        return [worker for worker, presence in self._presences.items() if not presence.left]

    def _end_work(self) -> Iterator[SampleAction]:
        """Who still works although nothing is left to do is named; then the outputs are merged."""
        stuck = filter(self.leases.holds, self._alive()) if self._settled else ()
        for node, rank in stuck:
            what = "still running after its samples were completed elsewhere: terminating"
            yield SayNote(f"{node}: rank {rank} {what}")
        yield from self._merge_once()

    def _figures(self) -> Iterable[Rate]:
        figures = self.rates.figures(self.ledger.latencies())
        return (rate for rate in figures if not (self._terms.paced and rate.name == DIVISION))

    # ---- failures -------------------------------------------------------------------------------

    def _fail_groups(self, groups: Iterable[int]) -> Iterator[SampleAction]:
        """Groups that were lost or timed out on as many workers as may try them."""
        for group in groups:
            samples = self.ledger.samples_of(group)
            what = f"samples {samples[0]}-{samples[-1]} failed"
            yield SayNote(f"{what}: lost or timed out on {MAX_RETURNS} leases")
            for sample in samples:
                yield from self._fail_sample(sample, None)

    def _fail_sample(self, sample: int, by: Worker | None) -> Iterator[SampleAction]:
        group = self.ledger.group_of(sample)
        if not self.ledger.fail_groups(sample):
            return
        if self.ledger.is_settled(group):
            self.leases.settle(group, by)
        if self._terms.issued:
            yield ForwardAnswer(sample, None)

    def _complain(self, line: RecordRead, what: str) -> Iterator[SampleAction]:
        self._complaints += 1
        if self._complaints <= MAX_COMPLAINTS:
            node, rank = line.worker
            late = "" if line.attempt == self._terms.attempt else f" of attempt {line.attempt}"
            yield SayNote(f"{node}: rank {rank}{late}: {what}")


def _counts(standing: ReportStanding) -> tuple[int, ...]:
    return standing.done, standing.failed, standing.duplicates, standing.conflicts
