"""What workers say of divisible work is checked, and is read again after a crash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.store.layout import RunFolder
from orchestrator.adapters.store.merge import merge_samples
from orchestrator.core.base.errors import InternalError
from orchestrator.core.model.inventory import Cluster
from orchestrator.core.model.request import RunRequest, SampleSet
from orchestrator.core.model.workload import Job, Workload
from orchestrator.core.run.events import Event
from orchestrator.core.run.state import RunState, new_state
from orchestrator.core.sharing.leases import Worker
from orchestrator.core.sharing.sample_machine import MAX_COMPLAINTS
from orchestrator.core.sharing.sample_protocol import NodesSeen
from orchestrator.core.verdict.result import Result
from orchestrator.engine.sharing.rank_exchange import Exchange
from orchestrator.engine.sharing.sample_memory import digest_configuration
from orchestrator.engine.sharing.sample_scheduler import SampleScheduler
from orchestrator.engine.support.context import RunContext
from orchestrator.parsing.replies.sample_records import sample_line

HERE: Worker = ("n1", 0)


class Notes:
    """An observer that keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def on_event(self, at: float, event: Event, state: RunState) -> None: ...

    def on_log(self, node: str, file: str, chunk: bytes) -> None: ...

    def on_note(self, text: str) -> None:
        self.said.append(text)

    def close(self, result: Result | None) -> None: ...


class Account:
    """A service that only reads: rank 0 of n1 is the attempt's only rank."""

    def __init__(self, scheduler: SampleScheduler) -> None:
        self._scheduler = scheduler
        machine = scheduler.machine
        self.ledger, self.leases = machine.ledger, machine.leases
        self.ready, self.unfit = machine.ready, machine.unfit
        seen = NodesSeen({HERE: False}, connected=True, drained=False, halted=False)
        assert machine.step(seen, 0.0) == ()

    async def hear(self) -> None:
        await self._scheduler.read_records()

    @property
    def sources(self) -> list[Path]:
        return self._scheduler.sources


class Desk:
    """A run's folder with what workers have told, and an account of it."""

    def __init__(self, root: Path, total: int = 4, group: int = 2) -> None:
        self.notes = Notes()
        self.events: list[Event | BaseException] = []
        self.samples = SampleSet(total=total, group=group)
        workload = Workload(name="w", source="w.yaml", folder="/w")
        self.request = RunRequest(
            run_id="r",
            cluster=Cluster(name="c", source="c.yaml", nodes=()),
            job=Job(workload=workload),
            samples=self.samples,
        )
        self.folder = RunFolder(root / "r")
        self.folder.create()

    def account(self, attempt: int = 1) -> Account:
        context = RunContext(
            request=self.request, snapshot=None, folder=self.folder, observers=[self.notes]
        )
        state = replace(new_state(self.request), attempt=attempt)
        exchange = Exchange(self.folder, {}, state)
        scheduler = SampleScheduler(exchange, context, self.events.append, self.samples)
        return Account(scheduler)

    def tell(
        self, *records: dict[str, Any] | bytes, node: str = "n1", rank: int = 0, attempt: int = 1
    ) -> None:
        path = self.folder.exchange(node, f"exchange-{rank}.jsonl", attempt)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            for record in records:
                file.write((record if isinstance(record, bytes) else line(record)) + b"\n")

    @staticmethod
    def outputs(folder: Path) -> list[Path]:
        return list(folder.glob("*samples*"))

    def ready(self) -> dict[str, Any]:
        return {"type": "worker", "configuration": digest_configuration(self.request)}


def line(record: dict[str, Any]) -> bytes:
    return json.dumps(record).encode()


def output(sample: int, **content: Any) -> dict[str, Any]:
    digest = hashlib.sha256(sample_line(sample, content)).hexdigest()
    told = {"type": "output", "sample": sample, "seconds": 0.5, "amounts": {"tokens": 3}}
    return {**told, "output": content, "sha256": digest}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


async def test_an_account_is_the_same_when_it_is_read_again(desk: Desk, tmp_path: Path) -> None:
    """Earlier attempts count, repeats do not, and the merged outputs are in order."""
    desk.tell(desk.ready(), output(3, b="x"), output(1, a=1), output(1, a=1))
    desk.tell(desk.ready(), output(0, a=0), attempt=2)
    account = desk.account(attempt=2)
    await account.hear()
    desk.tell(output(2, a=2.5), output(3, b="x"), attempt=2)
    await account.hear()
    again = desk.account(attempt=2)
    await again.hear()

    for each in (account, again):
        assert (each.ledger.done, each.ledger.duplicates, each.ledger.conflicts) == (4, 2, 0)
        assert each.ledger.latencies() == [0.5] * 4
        assert each.leases.unassigned == 0
    merge_samples(again.ledger, again.sources, tmp_path)
    assert (tmp_path / "samples.jsonl").read_text() == (
        '{"a": 0, "index": 0}\n{"a": 1, "index": 1}\n{"a": 2.5, "index": 2}\n'
        '{"b": "x", "index": 3}\n'
    )


async def test_outputs_that_differ_are_a_conflict_and_are_not_merged(
    desk: Desk, tmp_path: Path
) -> None:
    """The first stays, the second is said, and there is no merged file."""
    desk.tell(desk.ready(), *(output(sample, a=sample) for sample in range(4)), output(2, a=7))
    account = desk.account()
    await account.hear()

    assert (account.ledger.done, account.ledger.conflicts) == (4, 1)
    assert desk.notes.said == ["n1: rank 0: its output of sample 2 differs from the first"]
    with pytest.raises(ValueError, match="in conflict"):
        merge_samples(account.ledger, account.sources, tmp_path)
    assert desk.outputs(tmp_path) == []


async def test_a_merge_reads_what_was_accepted_or_nothing(desk: Desk, tmp_path: Path) -> None:
    """A file that was changed meanwhile is found out; nothing half-written stays."""
    desk.tell(desk.ready(), *(output(sample, a=sample) for sample in range(4)))
    account = desk.account()
    await account.hear()
    path = desk.folder.exchange("n1", "exchange-0.jsonl")
    path.write_bytes(path.read_bytes().replace(b'{"a": 3}', b'{"a": 9}'))

    with pytest.raises(InternalError, match="sample 3 is not what was accepted"):
        merge_samples(account.ledger, account.sources, tmp_path)
    assert desk.outputs(tmp_path) == []


async def test_missing_samples_are_not_merged(desk: Desk, tmp_path: Path) -> None:
    """A hole is no result."""
    desk.tell(desk.ready(), output(0), output(1), output(3))
    account = desk.account()
    await account.hear()
    with pytest.raises(ValueError, match="missing"):
        merge_samples(account.ledger, account.sources, tmp_path)


@pytest.mark.parametrize(
    "first", [{"type": "worker", "configuration": "another"}, {"type": "worked", "groups": []}]
)
async def test_another_configuration_does_not_count(desk: Desk, first: dict[str, Any]) -> None:
    """Nor does a worker that never said what it is."""
    desk.tell({**first, "busy": 0}, output(0))
    account = desk.account()
    await account.hear()

    assert account.ledger.done == 0
    assert not account.ready


BAD: Sequence[dict[str, Any] | bytes] = (
    b"\xff\xfe",
    b"{no",
    b"[1]",
    b"7",
    b"[" * 100_000,
    b'{"type": "output"}',
    b'{"type": {}}',
    {**output(0), "sample": 4},
    {**output(0), "sample": -1},
    {**output(0), "sample": True},
    {**output(0), "sample": "0"},
    {**output(0), "sha256": "0" * 64},
    {**output(0), "sha256": None},
    {**output(0), "output": {"a": 1}},
    {**output(0), "output": [1]},
    {**output(0), "output": {"index": 5}},
    {**output(0), "seconds": -1},
    {**output(0), "seconds": float("nan")},
    {**output(0), "seconds": 10**400},
    {**output(0), "amounts": {"x": "y"}},
    {**output(0), "amounts": {str(n): 1 for n in range(100)}},
    {**output(0), "amounts": {"two\nlines": 1}},
    {"type": "failed", "sample": 99, "reason": "x"},
    {"type": "worked", "groups": [2], "busy": 1},
    {"type": "worked", "groups": "01", "busy": 1},
    {"type": "worked", "groups": [0], "busy": None},
    {"type": "took", "feed": 0, "lease": "x", "groups": []},
    {"type": "took", "feed": 1, "lease": "x" * 1000, "groups": []},
    {"type": "took", "feed": 1, "lease": "x", "groups": [0] * 70_000},
)


@pytest.mark.parametrize("bad", BAD, ids=range(len(BAD)))
async def test_a_bad_line_is_said_and_counts_for_nothing(
    desk: Desk, bad: dict[str, Any] | bytes
) -> None:
    """Whatever stands in it; the lines around it count."""
    desk.tell(desk.ready(), output(1), bad, output(3))
    account = desk.account()
    await account.hear()

    assert (account.ledger.done, account.ledger.failed) == (2, 0)
    assert len(desk.notes.said) == 1
    assert len(desk.notes.said[0]) < 300


async def test_complaints_are_bounded(desk: Desk) -> None:
    """A node that writes nonsense for ever is not repeated for ever."""
    desk.tell(*[b"nonsense"] * 1000)
    await desk.account().hear()
    assert len(desk.notes.said) == MAX_COMPLAINTS


async def test_a_rank_of_another_node_is_not_heard(desk: Desk) -> None:
    """A node cannot speak for another one's ranks."""
    desk.tell(desk.ready(), output(0), node="n2", rank=0)
    account = desk.account()
    await account.hear()

    assert account.ledger.done == 0
    assert desk.notes.said == ["n2: rank 0: it is no rank of this node"] * 2


async def test_a_line_that_is_not_whole_yet_waits(desk: Desk) -> None:
    """Half a line is no line."""
    desk.tell(desk.ready())
    path = desk.folder.exchange("n1", "exchange-0.jsonl")
    whole = line(output(0)) + b"\n"
    account = desk.account()
    for end in (20, len(whole)):
        with path.open("ab") as file:
            file.write(whole[:20] if end == 20 else whole[20:])
        await account.hear()
        assert account.ledger.done == (end == len(whole))


async def test_failures_of_earlier_attempts_are_tried_again(desk: Desk) -> None:
    """What one attempt gave up is open for the next one; its outputs are kept."""
    failed = {"type": "failed", "sample": 0, "reason": "no memory"}
    desk.tell(desk.ready(), failed, output(1))
    first, second = desk.account(1), desk.account(2)
    await first.hear()
    await second.hear()

    assert (first.ledger.done, first.ledger.failed) == (1, 1)
    assert (second.ledger.done, second.ledger.failed) == (1, 0)


async def test_the_first_identity_counts_for_its_configuration(desk: Desk) -> None:
    """A worker with another model is unlike the first, also for the next coordinator; once other
    code or samples were accepted, another model may be right.
    """
    mine, other = ({**desk.ready(), "identity": name} for name in ("a model", "another"))
    desk.tell(mine)
    desk.tell(other, output(0), attempt=2)
    account = desk.account(2)
    await account.hear()
    assert (account.ledger.done, list(account.unfit)) == (0, [HERE])

    desk.request = replace(desk.request, code="changed")
    desk.tell({**other, "configuration": digest_configuration(desk.request)}, output(1), attempt=3)
    account = desk.account(3)
    await account.hear()
    assert (account.ledger.done, list(account.unfit)) == (1, [])
