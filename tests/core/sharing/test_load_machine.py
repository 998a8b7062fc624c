"""What a load generator is told, decided: each promise holds whatever workers do, in any order."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.model.load import LoadMode, LoadTerms, Scenario
from orchestrator.core.sharing.load_machine import READY_S, READY_TIMES, SILENCE_S, LoadMachine
from orchestrator.core.sharing.load_protocol import (
    AddSamples,
    Answered,
    EndSamples,
    Flushed,
    GeneratorGone,
    GiveUp,
    Issued,
    LoadAction,
    LoadEnded,
    LoadEvent,
    Looked,
    SampleBegun,
    StartTest,
    TellAnswered,
    TellBegun,
    WorkersSeen,
)

READY = WorkersSeen(ready=2, per_s=7.5, starting=0)
TOKENS = {"generated_tokens": 3.0}


class Asking:
    """A machine, and all that it asked for."""

    def __init__(self, group: int = 1) -> None:
        self.machine = LoadMachine(group, 0.0)
        self.now = 0.0
        self.actions: list[LoadAction] = []
        self.asked: list[tuple[int, int]] = []

    def send(self, event: LoadEvent, after_s: float = 0.0) -> list[LoadAction]:
        self.now += after_s
        actions = list(self.machine.step(event, self.now))
        self.actions += actions
        return actions

    def issue(self, count: int) -> list[LoadAction]:
        first = len(self.asked)
        new = [(2**40 + 16 * n, n % 5) for n in range(first, first + count)]
        self.asked += new
        return self.send(Issued(tuple(new)))

    def told(self) -> Iterator[tuple[int, str]]:
        for action in self.actions:
            if isinstance(action, TellBegun):
                yield action.id, "begun"
            elif isinstance(action, TellAnswered):
                yield action.id, "answered"


EVENTS = st.lists(
    st.one_of(
        st.integers(1, 3),
        st.builds(SampleBegun, st.integers(0, 15)),
        st.builds(Answered, st.integers(0, 15), st.sampled_from([TOKENS, None])),
        st.sampled_from([Flushed(), LoadEnded(), Looked(), READY]),
    ),
    max_size=40,
)


@given(EVENTS)
def test_the_generator_hears_of_each_id_once_and_in_order(events: list[LoadEvent | int]) -> None:
    """That it has begun, then that it is answered; nothing twice, nothing that was not asked for;
    the work is started and ended once, and nothing is asked for after its end.
    """
    test = Asking()
    for event in events:
        if isinstance(event, int):
            if not test.machine.closed:
                assert test.issue(event) == [AddSamples(event)]
        else:
            test.send(event)

    ids = [id for id, _ in test.asked]
    seen: dict[int, list[str]] = {}
    for id, what in test.told():
        seen.setdefault(id, []).append(what)
    assert seen.keys() <= set(ids)
    assert all(told in (["begun"], ["begun", "answered"]) for told in seen.values())
    answered = {a.number for a in test.actions if isinstance(a, TellAnswered)}
    heard = {e.number for e in events if isinstance(e, Answered)}
    assert answered <= heard
    assert all(ids[a.number] == a.id for a in test.actions if isinstance(a, TellAnswered))
    assert sum(isinstance(a, StartTest) for a in test.actions) <= 1
    assert sum(isinstance(a, EndSamples) for a in test.actions) <= 1
    assert sum(a.count for a in test.actions if isinstance(a, AddSamples)) == len(ids)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=8), st.randoms())
def test_every_sample_that_workers_answer_is_answered(sizes: list[int], random: Random) -> None:
    """Whatever the order, and with each answer coming twice."""
    test = Asking()
    test.send(READY)
    for size in sizes:
        test.issue(size)
    numbers = [*range(len(test.asked)), *range(len(test.asked))]
    random.shuffle(numbers)
    for number in numbers:
        test.send(Answered(number, TOKENS))

    told = [id for id, what in test.told() if what == "answered"]
    assert sorted(told) == [id for id, _ in test.asked]
    assert test.machine.indices(0, len(test.asked)) == [index for _, index in test.asked]


def test_a_test_starts_when_all_workers_are_ready() -> None:
    """What one of them still loads would count as latency."""
    test = Asking()
    assert test.send(WorkersSeen(ready=0, per_s=0.0, starting=2)) == []
    assert test.send(WorkersSeen(ready=1, per_s=4.0, starting=1), 5.0) == []
    assert test.send(WorkersSeen(ready=2, per_s=9.0, starting=0), 5.0) == [StartTest(9.0)]
    assert test.send(READY, 5.0) == []


@pytest.mark.parametrize("first_s", [1.0, 100.0])
def test_a_worker_that_does_not_get_ready_is_not_waited_for_for_ever(first_s: float) -> None:
    """A minute, or three times what another one took: a large model may take long to load."""
    test = Asking()
    waiting = WorkersSeen(ready=1, per_s=4.0, starting=1)
    patience = max(READY_S, READY_TIMES * first_s)
    assert test.send(waiting, first_s) == []
    assert test.send(waiting, patience - 0.1) == []
    assert test.send(waiting, 0.2) == [StartTest(4.0)]


def test_a_generator_that_stands_still_is_given_up() -> None:
    """Only if every sample is answered: until then it is its turn to wait, however long."""
    test = Asking()
    test.send(READY)
    test.issue(1)
    assert test.send(Looked(), 10 * SILENCE_S) == []
    test.send(Answered(0, TOKENS))
    assert test.send(Looked(), SILENCE_S - 1) == []
    (action,) = test.send(Looked(), 2.0)
    assert isinstance(action, GiveUp)
    assert test.issue(1) == test.send(Answered(0, TOKENS)) == []


def test_a_generator_that_dies_is_given_up_unless_its_test_is_over() -> None:
    """LoadGen has crashed after a good test; then what it wrote counts."""
    test = Asking()
    test.send(READY)
    assert test.send(GeneratorGone("killed")) == [GiveUp("killed")]
    test = Asking()
    test.send(READY)
    test.issue(1)
    test.send(Answered(0, TOKENS))
    assert test.send(LoadEnded()) == [EndSamples()]
    assert test.send(GeneratorGone("SIGSEGV")) == []


def test_a_query_that_would_change_a_group_is_refused() -> None:
    """Workers have the last group already, and nothing comes after the end."""
    test = Asking(group=4)
    test.send(READY)
    assert test.issue(8) == [AddSamples(8)]
    assert test.issue(3) == [AddSamples(3)]
    assert isinstance(test.issue(4)[0], GiveUp)
    test = Asking()
    test.send(Flushed())
    assert isinstance(test.issue(1)[0], GiveUp)


@given(st.sampled_from(Scenario), st.integers(1, 64))
def test_no_group_has_samples_of_two_queries(scenario: Scenario, batch: int) -> None:
    """Offline is one query; the streams ask for 8 or 1 at a time, Server for 1."""
    terms = LoadTerms(
        rules="short",
        scenario=scenario,
        mode=LoadMode.PERFORMANCE,
        benchmark="llama3_1-8b",
        target_qps=0.0,
        min_duration_s=0.0,
        answer="tokens",
    )
    size = {Scenario.OFFLINE: batch, Scenario.MULTI_STREAM: 8}.get(scenario, 1)
    assert 1 <= terms.group(batch) <= batch
    assert size % terms.group(batch) == 0


def test_a_verdict_is_due_when_all_is_asked_for_and_answered() -> None:
    """Offline, LoadGen asks for nothing more at once, and waits for answers that may never come."""
    test = Asking(group=2)
    test.send(READY)
    test.issue(2)
    test.send(Flushed())
    test.send(Answered(0, TOKENS))
    assert not test.machine.complete
    test.send(Answered(1, None))
    assert test.machine.complete
