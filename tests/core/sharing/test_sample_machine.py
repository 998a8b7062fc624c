"""The service of divisible work, decided: each promise holds whatever happens, and in whatever
order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.sharing.admission import Identity
from orchestrator.core.sharing.leases import Worker
from orchestrator.core.sharing.ledger import OutputLocation
from orchestrator.core.sharing.sample_machine import SampleMachine, SampleTerms
from orchestrator.core.sharing.sample_protocol import (
    AckMatched,
    Finish,
    FirstToken,
    ForwardAnswer,
    ForwardFirstToken,
    IssueEnded,
    KeepIdentity,
    LastRecordsRead,
    LeaseAck,
    MatchAck,
    MergeOutputs,
    NodesSeen,
    Output,
    OutputsMerged,
    Ready,
    Record,
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

MINE = "c" * 64
WORKERS: tuple[Worker, ...] = (("n1", 0), ("n1", 1), ("n2", 2), ("n3", 3))
NOWHERE = OutputLocation(0, 0, 0)


class Service:
    """A machine, and what a world around it did and was asked to do."""

    def __init__(self, total: int, group: int, **terms: float) -> None:
        self.now = 0.0
        self.terms = SampleTerms(
            total=total,
            group=group,
            attempt=1,
            configuration=MINE,
            **terms,  # type: ignore[arg-type]
        )
        self.machine = SampleMachine(self.terms, self.now)
        self.gone = dict.fromkeys(WORKERS, False)
        self.history: list[tuple[SampleEvent, float, tuple[SampleAction, ...]]] = []
        self.holds: dict[Worker, list[int]] = {worker: [] for worker in WORKERS}
        self.cut: set[Worker] = set()
        self.answered: set[int] = set()
        self.see()

    def send(self, event: SampleEvent) -> list[SampleAction]:
        actions = self.machine.step(event, self.now)
        self.history.append((event, self.now, actions))
        for action in actions:
            self.follow(action)
        return list(actions)

    def follow(self, action: SampleAction) -> None:
        """As workers do: they take leases, and drop what is recalled."""
        match action:
            case SendLease(worker=worker, groups=groups) if worker not in self.cut:
                self.holds[worker].extend(groups)
            case SendRecall(worker=worker, groups=groups):
                self.holds[worker] = [g for g in self.holds[worker] if g not in groups]
            case _:
                pass

    def see(self, *, connected: bool = True, drained: bool = False) -> list[SampleAction]:
        gone = dict(self.gone)
        return self.send(NodesSeen(gone, connected=connected, drained=drained, halted=False))

    def read(self, worker: Worker, record: Record | str, attempt: int = 1) -> list[SampleAction]:
        return self.send(RecordRead(attempt, worker, record, NOWHERE))

    def answer(self, worker: Worker, sample: int, attempt: int = 1) -> list[SampleAction]:
        digest = sample.to_bytes(32, "big")
        actions = self.read(worker, Output(sample, digest, 0.1, {}), attempt)
        self.answered.add(sample)
        return actions

    def work(self, worker: Worker) -> None:
        """It does the first group that it holds, and says so."""
        if self.gone[worker] or not self.holds[worker]:
            return
        group = self.holds[worker].pop(0)
        for sample in self.machine.ledger.samples_of(group):
            self.answer(worker, sample)
        self.read(worker, Worked((group,), self.now + 0.001))

    def lose(self, worker: Worker) -> None:
        self.gone[worker] = True
        self.see()
        self.now += 1.0
        self.holds[worker] = []

    @property
    def actions(self) -> Iterator[SampleAction]:
        for _, _, actions in self.history:
            yield from actions


def service(total: int = 8, group: int = 2, workers: int = 2) -> Service:
    served = Service(total, group)
    for worker in WORKERS[:workers]:
        served.read(worker, Ready(MINE))
    return served


WHAT = st.sampled_from(
    ["ready", "work", "work", "work", "lose", "again", "fail", "cut", "old", "wait", "long"]
)
STEPS = st.lists(st.tuples(WHAT, st.integers(0, 3), st.integers(0, 11)), max_size=60)


def perform(served: Service, what: str, number: int, sample: int) -> None:
    worker = WORKERS[number]
    sample %= served.terms.total
    match what:
        case "ready":
            served.read(worker, Ready(MINE))
        case "work":
            served.work(worker)
        case "lose" if number:  # the first worker stays
            served.lose(worker)
        case "again" if sample in served.answered:
            served.answer(worker, sample)
        case "old":
            served.read(worker, Ready(MINE), attempt=0)
            served.answer(worker, sample, attempt=0)
        case "fail" if number:
            served.read(worker, SampleFailed(sample, "no memory"))
        case "cut" if number:
            served.send(Undeliverable(worker, "no link"))
            served.cut.add(worker)
        case "wait":
            served.now += 0.4
        case "long":
            served.now += 200.0
        case _:
            pass
    served.send(Tick())


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), st.integers(1, 3), STEPS)
def test_each_sample_is_counted_once_and_the_work_ends(
    total: int, group: int, steps: list[tuple[str, int, int]]
) -> None:
    """Losses, cuts, repeats, outputs of earlier attempts: ``done`` is how many samples have an
    answer that counts, and one worker that stays does all that is left.
    """
    served = Service(total, group)
    served.read(WORKERS[0], Ready(MINE))
    for step in steps:
        perform(served, *step)
        standing = served.machine.standing()
        assert standing.done <= len(served.answered)
        assert standing.done + standing.failed <= total
        assert standing.conflicts == 0
    for worker in WORKERS[1:]:
        served.lose(worker)
    for _ in range(8 * served.machine.ledger.groups + 8):
        served.now += 0.1
        served.send(Tick())
        served.work(WORKERS[0])

    standing = served.machine.standing()
    assert standing.done + standing.failed == total
    served.send(Tick())
    ended = [action for action in served.actions if action == SendEnd(WORKERS[0])]
    assert len(ended) == 1


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), st.integers(1, 3), STEPS)
def test_a_group_is_never_leased_to_more_than_two_and_to_none_twice(
    total: int, group: int, steps: list[tuple[str, int, int]]
) -> None:
    """Two: the second one works beside a slow one, and only once every group is given out. Workers
    that were silent for too long, or that no feed reaches, hold nothing, whatever they think.
    """
    served = Service(total, group)
    served.read(WORKERS[0], Ready(MINE))
    for step in steps:
        before = len(served.history)
        perform(served, *step)
        if step[0] == "long":
            served.holds = {worker: [] for worker in WORKERS}
            continue
        for _, _, actions in served.history[before:]:
            granted = [g for a in actions if isinstance(a, SendLease) for g in a.groups]
            assert max(Counter(granted).values(), default=0) <= 1
        there = [w for w in WORKERS if not served.gone[w] and w not in served.cut]
        held = Counter(group for worker in there for group in served.holds[worker])
        ledger = served.machine.ledger
        open_groups = [g for g in held if not ledger.is_settled(g)]
        assert all(held[g] <= 2 for g in open_groups)
        assert all(len(groups) == len(set(groups)) for groups in served.holds.values())
        if any(held[g] > 1 for g in open_groups):
            assert served.machine.leases.unassigned == 0


@settings(max_examples=50, deadline=None)
@given(STEPS)
def test_the_same_events_lead_to_the_same_actions(steps: list[tuple[str, int, int]]) -> None:
    """No clock, no chance: a replay decides what was decided."""
    served = Service(8, 2)
    for step in steps:
        perform(served, *step)
    again = SampleMachine(served.terms, 0.0)
    for event, now, actions in served.history:
        assert again.step(event, now) == actions


def test_a_late_answer_changes_nothing_but_the_duplicates() -> None:
    """The first output stays, whoever comes second."""
    served = service(total=2, group=1)
    served.send(Tick())
    for worker in WORKERS[:2]:
        for sample in (0, 1):
            served.answer(worker, sample)
    standing = served.machine.standing()
    assert (standing.done, standing.duplicates, standing.conflicts) == (2, 2, 0)


def test_the_end_comes_after_the_last_words_and_the_merge() -> None:
    """Workers are told once; the outputs are merged once; the final standing is the last word."""
    served = service(total=2, group=1, workers=1)
    served.send(Tick())
    served.work(WORKERS[0])
    served.send(Tick())
    served.work(WORKERS[0])
    ended = served.send(Tick())
    assert ended[:2] == [SendEnd(WORKERS[0]), MergeOutputs()]
    served.gone = dict.fromkeys(WORKERS, True)
    served.see(drained=True)
    served.now += 1.0
    assert served.send(Tick())[-1] == Finish()
    assert served.send(LastRecordsRead()) == []
    *_, last = served.send(OutputsMerged())
    assert isinstance(last, ReportStanding)
    assert (last.final, last.done) == (True, 2)


def test_after_a_takeover_nothing_is_leased_before_the_nodes_had_their_say() -> None:
    """What workers said meanwhile would be done again."""
    served = Service(4, 1, catch_up_s=30.0)
    served.see(connected=False)
    served.read(WORKERS[0], Ready(MINE))
    assert served.send(Tick()) == []
    served.now += 20.0
    served.see(connected=True)
    assert served.send(Tick()) == []
    served.answer(WORKERS[0], 2)
    served.now += 1.5
    leases = [action for action in served.send(Tick()) if isinstance(action, SendLease)]
    assert [group for lease in leases for group in lease.groups] == [0]


def test_after_a_takeover_nodes_that_stay_away_are_not_waited_for() -> None:
    """Beyond the time that connecting may take."""
    served = Service(4, 1, catch_up_s=30.0)
    served.see(connected=False)
    served.read(WORKERS[0], Ready(MINE))
    served.now += 31.0
    assert served.send(Tick()) == []
    served.now += 1.0
    assert any(isinstance(action, SendLease) for action in served.send(Tick()))


def test_a_feed_that_was_never_seen_goes_to_another() -> None:
    """An earlier coordinator's lease arrived in its place: that one is held."""
    served = service(total=2, group=1, workers=1)
    lease = next(a for a in served.send(Tick()) if isinstance(a, SendLease))
    ack = LeaseAck(1, "old", (1,))
    assert served.read(WORKERS[0], ack) == [MatchAck(WORKERS[0], ack)]
    served.send(AckMatched(WORKERS[0], (lease.groups,), (1,)))
    served.read(WORKERS[1], Ready(MINE))
    given = [a.groups for a in served.send(Tick()) if isinstance(a, SendLease)]
    assert given == [(0,)]


def test_a_worker_with_another_model_is_refused_with_the_reason_once() -> None:
    """The first one decides, and is remembered."""
    served = Service(4, 1)
    first = served.read(WORKERS[0], Ready(MINE, "a model"))
    assert first == [KeepIdentity("n1", "a model")]
    (note,) = served.read(WORKERS[2], Ready(MINE, "another"))
    assert isinstance(note, SayNote)
    assert "another, that of n1 is a model" in note.text
    refused = [a for _ in range(2) for a in served.send(Tick()) if isinstance(a, SendRefusal)]
    assert [refusal.worker for refusal in refused] == [WORKERS[2]]
    kept = SampleTerms(
        total=4, group=1, attempt=2, configuration=MINE, identity=Identity("n1", "a model")
    )
    later = SampleMachine(kept, 0.0)
    later.step(served.history[0][0], 0.0)
    later.step(RecordRead(2, WORKERS[2], Ready(MINE, "another"), NOWHERE), 0.0)
    assert list(later.unfit) == [WORKERS[2]]


def test_a_worker_that_ended_or_is_cut_off_gets_no_lease_whatever_it_still_says() -> None:
    """Its first words may come after its last: others would wait for what it holds."""
    served = Service(4, 1)
    served.lose(WORKERS[1])
    served.send(Undeliverable(WORKERS[2], "no link"))
    for worker in WORKERS[:3]:
        served.read(worker, Ready(MINE))
    leased = {a.worker for a in served.send(Tick()) if isinstance(a, SendLease)}
    assert leased == {WORKERS[0]}


def issued(group: int = 1, *, paced: bool = False) -> Service:
    """Work that a load generator asks for, with two workers that are ready."""
    served = Service(0, group, issued=True, paced=paced)
    for worker in WORKERS[:2]:
        served.read(worker, Ready(MINE, per_s=3.0))
    return served


@given(
    st.lists(st.one_of(st.integers(1, 3), st.sampled_from(["work", "lose", "again"])), max_size=50),
    st.randoms(),
)
def test_samples_that_are_asked_for_by_and_by_are_each_answered_once(
    steps: list[int | str], random: Random
) -> None:
    """To whoever asked, too, also when a worker dies; nobody is sent home before the end."""
    served = issued()
    for step in steps:
        worker = random.choice(WORKERS[:2])
        if isinstance(step, int):
            served.send(SamplesIssued(step))
        elif step == "lose":
            served.lose(WORKERS[1])
        elif step == "again" and served.answered:
            served.answer(worker, min(served.answered))
        else:
            served.work(worker)
        served.now += 0.1
        served.send(Tick())
    assert not [action for action in served.actions if isinstance(action, (SendEnd, MergeOutputs))]
    served.send(IssueEnded())
    for _ in range(2 * served.machine.ledger.total + 40):
        served.now += 0.3
        served.send(Tick())
        for worker in WORKERS[:2]:
            served.work(worker)

    told = [action for action in served.actions if isinstance(action, ForwardAnswer)]
    assert [a.sample for a in sorted(told, key=lambda a: a.sample)] == list(
        range(served.machine.ledger.total)
    )
    assert all(action.amounts is not None for action in told)
    assert served.machine.ledger.settled


def test_what_is_asked_for_goes_to_one_worker_alone() -> None:
    """Nobody works beside another one, nor takes over what it may have begun: nothing is answered
    twice as long as both live.
    """
    served = issued()
    served.send(SamplesIssued(4))
    for _ in range(40):
        served.now += 0.5
        served.send(Tick())
        served.work(WORKERS[0])  # the other one stands still, but is heard of
        served.read(WORKERS[1], FirstToken(1))
    leased = [g for a in served.actions if isinstance(a, SendLease) for g in a.groups]
    assert sorted(leased) == sorted(set(leased))
    assert not any(isinstance(action, SendRecall) for action in served.actions)


def test_first_tokens_and_failures_reach_whoever_asked() -> None:
    """Of work that nobody asks for, neither is said."""
    served = issued()
    served.send(SamplesIssued(2))
    assert served.read(WORKERS[0], FirstToken(1)) == [ForwardFirstToken(1)]
    failed = served.read(WORKERS[0], SampleFailed(0, "no sense"))
    assert ForwardAnswer(0, None) in failed
    plain = service()
    assert plain.read(WORKERS[0], FirstToken(1)) == []
    assert not any(isinstance(a, ForwardAnswer) for a in plain.answer(WORKERS[0], 1))


def test_an_earlier_test_says_nothing_of_this_one() -> None:
    """A number meant another sample then."""
    served = issued()
    served.send(SamplesIssued(2))
    served.read(WORKERS[0], Ready(MINE), attempt=0)
    assert served.answer(WORKERS[0], 1, attempt=0) == []
    assert served.machine.ledger.done == 0


def test_workers_that_wait_for_queries_are_not_called_inefficient() -> None:
    """At another one's pace, samples a second say nothing of how the work was divided."""
    for paced in (True, False):
        served = issued(paced=paced)
        served.send(SamplesIssued(4))
        served.send(IssueEnded())
        for _ in range(8):
            served.now += 0.5
            served.send(Tick())
            served.work(WORKERS[0])
            served.work(WORKERS[1])
        served.send(LastRecordsRead())
        actions = served.send(OutputsMerged())
        names = {action.rate.name for action in actions if isinstance(action, ReportRate)}
        assert "samples_per_s" in names
        assert ("division_efficiency" in names) is not paced
