"""What workers of divisible work say, turned into ledger, leases and rates.

All of it is on disk before it is read here, so that an account begins with what was said before:
to a coordinator that crashed, and in earlier attempts. Nothing in it is trusted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator.core.model.request import RunRequest, SampleSet
from orchestrator.core.sharing.leases import MAX_RETURNS, Leases, Worker
from orchestrator.core.sharing.ledger import Acceptance, Ledger, OutputLocation
from orchestrator.engine.sharing.output_identity import OutputIdentity
from orchestrator.engine.sharing.rank_exchange import ExchangeReader, RankRecord
from orchestrator.engine.sharing.rates import SampleRates
from orchestrator.engine.support.context import RunContext
from orchestrator.parsing.replies.sample_records import (
    LeaseAck,
    Output,
    Ready,
    Record,
    SampleFailed,
    Worked,
    parse_sample_record,
)

LINES_PER_SLICE = 200
MAX_COMPLAINTS = 20


def configuration(request: RunRequest) -> str:
    """What every worker of the run begins with, digested as the kit does."""
    samples = request.samples
    begun = [request.configuration, request.job.argv(), samples.group if samples else 0]
    return hashlib.sha256(json.dumps(begun).encode()).hexdigest()


class SampleAccount:
    """One attempt's account. ``ready`` are the workers that said what they are, and fit; ``unfit``
    those that do not, and why.

    ``belongs`` says whether a rank is one of this attempt's on its node; ``took`` hears which feeds
    were taken.
    """

    def __init__(
        self,
        context: RunContext,
        request: RunRequest,
        samples: SampleSet,
        attempt: int,
        *,
        belongs: Callable[[Worker], bool],
        took: Callable[[Worker, LeaseAck], None],
    ) -> None:
        self.ledger = Ledger(samples.total, samples.group)
        self.leases = Leases(self.ledger)
        self.rates = SampleRates()
        self.ready: set[Worker] = set()
        self.unfit: dict[Worker, str] = {}
        self._context = context
        self._attempt = attempt
        self._belongs = belongs
        self._took = took
        self._configuration = configuration(request)
        self._identity = OutputIdentity(context.folder, self._configuration)
        self._configured: dict[tuple[int, str, int], bool] = {}
        self._reader = ExchangeReader(context.folder)
        self._sources: dict[Path, int] = {}
        self._complaints = 0

    @property
    def now(self) -> float:
        return self._context.clock.monotonic()

    @property
    def sources(self) -> list[Path]:
        """The files that places in the ledger count."""
        return list(self._sources)

    async def hear(self) -> None:
        """Take in what is new."""
        for number, heard in enumerate(self._reader.read(), 1):
            self._take(heard)
            if number % LINES_PER_SLICE == 0:
                await asyncio.sleep(0)

    def fail_groups(self, groups: Iterable[int]) -> None:
        """Groups that were lost or timed out on as many workers as may try them."""
        for group in groups:
            samples = self.ledger.samples_of(group)
            what = f"samples {samples[0]}-{samples[-1]} failed"
            self._context.note(f"{what}: lost or timed out on {MAX_RETURNS} leases")
            for sample in samples:
                self._fail(sample, None)

    def _take(self, heard: RankRecord) -> None:
        worker = (heard.node, heard.rank)
        present = heard.attempt == self._attempt
        if present and not self._belongs(worker):
            self._complain(heard, "it is no rank of this node")
            return
        record = parse_sample_record(heard.line, self.ledger.total, self.ledger.groups)
        if isinstance(record, str):
            self._complain(heard, record)
        elif isinstance(record, Ready):
            self._take_ready(heard, record, present=present)
        elif not self._configured.get((heard.attempt, *worker)):
            return  # it was complained about when it said what it is
        elif isinstance(record, Output):
            self._take_output(heard, record, present=present)
        elif present:
            self._take_word(heard, record)

    def _take_ready(self, heard: RankRecord, record: Ready, *, present: bool) -> None:
        worker = (heard.node, heard.rank)
        unlike = self._unlike(heard.node, record)
        self._configured[heard.attempt, *worker] = not unlike
        if unlike:
            self._complain(heard, f"{unlike}: its outputs do not count")
            if present:
                self.unfit[worker] = unlike
        elif present:
            self.ready.add(worker)
            self.leases.join(worker, self.now)

    def _unlike(self, node: str, record: Ready) -> str:
        """What sets a worker apart from those whose outputs count; empty if nothing does."""
        if record.configuration != self._configuration:
            return "it has other code, arguments or samples than this run"
        return self._identity.unlike(node, record.identity)

    def _take_output(self, heard: RankRecord, output: Output, *, present: bool) -> None:
        worker = (heard.node, heard.rank)
        source = self._sources.setdefault(heard.path, len(self._sources))
        place = OutputLocation(source, heard.offset, len(heard.line))
        group = self.ledger.group_of(output.sample)
        open_before = not self.ledger.is_settled(group)
        answer = self.ledger.accept(output.sample, output.digest, place, output.seconds)
        if answer is Acceptance.CONFLICT:
            self._complain(heard, f"its output of sample {output.sample} differs from the first")
        if open_before and self.ledger.is_settled(group):
            self.leases.settle(group, worker if present else None)
        if present:
            accepted = answer is Acceptance.ACCEPTED
            self.leases.heard(worker, self.now)
            self.rates.answered(worker, output, accepted=accepted, now=self.now)

    def _take_word(self, heard: RankRecord, record: Record) -> None:
        worker, now = (heard.node, heard.rank), self.now
        self.leases.heard(worker, now)
        match record:
            case LeaseAck():
                self._took(worker, record)
            case Worked(groups=groups, busy_s=busy_s):
                self.rates.worked(worker, busy_s)
                self.fail_groups(self.leases.worked(worker, groups, busy_s, now))
            case SampleFailed(sample=sample, reason=reason):
                self._complain(heard, f"sample {sample} failed: {reason}")
                self._fail(sample, worker)
            case _:
                pass

    def _fail(self, sample: int, by: Worker | None) -> None:
        group = self.ledger.group_of(sample)
        if self.ledger.fail_groups(sample) and self.ledger.is_settled(group):
            self.leases.settle(group, by)

    def _complain(self, heard: RankRecord, what: str) -> None:
        self._complaints += 1
        if self._complaints <= MAX_COMPLAINTS:
            late = "" if heard.attempt == self._attempt else f" of attempt {heard.attempt}"
            self._context.note(f"{heard.node}: rank {heard.rank}{late}: {what}")
