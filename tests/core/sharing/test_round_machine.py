"""Local rounds, decided: rounds follow each other, count each part once, and wait for nobody for
long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.sharing.round_machine import END_S, JOIN_S, new_round_state, step
from orchestrator.core.sharing.round_protocol import (
    CloseRound,
    Closing,
    Ending,
    EndService,
    Fail,
    FeedParameters,
    FeedWords,
    FetchParameters,
    FetchPart,
    Heard,
    Joining,
    Kept,
    LivingSeen,
    Look,
    Over,
    ParametersFetched,
    PartFetched,
    PublishUpdate,
    Report,
    RoundAction,
    RoundEvent,
    RoundSaved,
    RoundState,
    SaveStart,
    StartSaved,
    Training,
)
from orchestrator.core.sharing.rounds import (
    Ended,
    Exchanged,
    Joined,
    Offered,
    Pace,
    Part,
    RoundTerms,
    StepTold,
    patience_s,
)

NAMES = ("n1", "n2", "n3")
TERMS = RoundTerms(
    training="a" * 64,
    steps=6,
    round_steps=2,
    rows=12,
    values=100,
    compression="none",
    learning_rate=1.0,
    momentum=0.0,
)


def joined(at: int = 0, sha256: str = "b", terms: RoundTerms = TERMS) -> Joined:
    return Joined(terms=terms, step=at, sha256=sha256 * 64)


def part(number: int, rows: int = 4) -> Part:
    told = StepTold(step=2 * number, loss=1.0, targets=5, tokens=7, seconds=0.1)
    file = Offered(name=f"part-{number}.bin", bytes=400, sha256="c" * 64)
    pace = Pace(rows=rows, seconds=1.0)
    return Part(round=number, rows=rows, pace=pace, file=file, curve=(told,))


class Service:
    """A machine and what does its actions: files are written at once, fetches end when asked to."""

    def __init__(self, kept: Kept | None = None, updates: tuple[int, ...] = ()) -> None:
        self.state: RoundState = new_round_state(1, dict.fromkeys(NAMES, 2), kept, updates)
        self.now = 100.0
        self.done: list[RoundAction] = []
        self.fetching: list[FetchPart] = []
        self.living = list(NAMES)
        self.send(LivingSeen(NAMES))

    def send(self, event: RoundEvent) -> list[RoundAction]:
        twice = step(self.state, event, self.now)
        assert twice == step(self.state, event, self.now)
        self.state, actions = twice
        done = list(actions)
        for action in actions:
            self.done.append(action)
            done += self.follow(action)
        return done

    def follow(self, action: RoundAction) -> list[RoundAction]:
        match action:
            case SaveStart():
                return self.send(StartSaved())
            case CloseRound():
                return self.send(RoundSaved())
            case FetchPart():
                self.fetching.append(action)
        return []

    def hear(self, node: str, report: Report) -> None:
        assert self.send(Heard(node, report)) == []

    def look(self) -> list[RoundAction]:
        """Until nothing more follows."""
        done: list[RoundAction] = []
        before = None
        while before is not self.state:
            before = self.state
            done += self.send(Look())
        return done

    def fetch(self, *, counts: bool = True) -> None:
        """The oldest fetch under way ends."""
        if self.fetching:
            asked = self.fetching.pop(0)
            self.send(PartFetched(asked.part.round, asked.node, counts=counts))

    def lose(self, node: str) -> None:
        if node in self.living:
            self.living.remove(node)
            self.send(LivingSeen(tuple(self.living)))

    def begin(self) -> None:
        for name in NAMES:
            self.hear(name, joined())
        self.look()

    def deliver(self, node: str, number: int) -> None:
        self.hear(node, part(number))
        self.look()
        self.fetch()

    @property
    def closed(self) -> Iterator[CloseRound]:
        return (action for action in self.done if isinstance(action, CloseRound))


WHAT = st.sampled_from(["part", "part", "part", "fetch", "fetch", "bad", "lose", "wait", "end"])
STEPS = st.lists(st.tuples(WHAT, st.sampled_from(NAMES)), max_size=60)


def perform(served: Service, what: str, node: str) -> None:
    phase = served.state.phase
    number = phase.kept.round + 1 if isinstance(phase, Training) else 1
    match what:
        case "part" if node in served.living:
            served.hear(node, part(number))
        case "fetch":
            served.fetch()
        case "bad":
            served.fetch(counts=False)
        case "lose" if node != "n1":
            served.lose(node)
        case "wait":
            served.now += 15.0
        case "end" if isinstance(phase, Ending):
            served.hear(node, Ended(sha256="d" * 64))
        case _:
            pass
    served.look()


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_rounds_follow_each_other_and_count_what_was_fetched_once(
    steps: list[tuple[str, str]],
) -> None:
    """Whatever is late, lost, bad or repeated. No round is closed without a part that counts."""
    served = Service()
    served.begin()
    for what, node in steps:
        perform(served, what, node)
    rounds = [close.kept.round for close in served.closed]
    assert rounds == list(range(1, len(rounds) + 1))
    for close in served.closed:
        assert close.weights
        assert set(close.weights) <= set(close.kept.participants)
        assert sum(close.weights.values()) == pytest.approx(1)
        assert set(close.kept.shares) == {close.kept.round + 1, close.kept.round + 2}
        assert sum(close.kept.shares[close.kept.round + 2]) == pytest.approx(1)
    published = [action.round for action in served.done if isinstance(action, PublishUpdate)]
    assert published == rounds
    assert not isinstance(served.state.phase, Closing)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_a_round_waits_for_no_lost_node_and_for_none_beyond_its_patience(
    steps: list[tuple[str, str]],
) -> None:
    """After each look: whoever a round still waits for lives, and the patience of the parts that
    are here is not over.
    """
    served = Service()
    served.begin()
    for what, node in steps:
        perform(served, what, node)
        phase = served.state.phase
        if not isinstance(phase, Training):
            continue
        fetched = {n for n, counts in phase.fetches.items() if counts is not None}
        assert set(served.living) - fetched, "a round that has all is closed"
        here = [part(1).pace for counts in phase.fetches.values() if counts]
        if here and phase.began is not None:
            assert served.now - phase.began <= patience_s(here)


@settings(max_examples=100, deadline=None)
@given(STEPS, st.integers(0, 59))
def test_a_coordinator_that_takes_over_continues_where_the_last_round_was_closed(
    steps: list[tuple[str, str]], at: int
) -> None:
    """From what is on disk: the reports of nodes, and the last position that was saved."""
    served = Service()
    served.begin()
    for what, node in steps[:at]:
        perform(served, what, node)
    saved = [a.kept for a in served.done if isinstance(a, SaveStart | CloseRound)]
    number = saved[-1].round
    again = Service(saved[-1], (number,) if number else ())
    for name in NAMES:
        again.hear(name, joined())
    for name in NAMES:
        again.hear(name, part(number + 1))
    again.look()
    for _ in NAMES:
        again.fetch()
    done = again.look()
    if number == TERMS.last_round:
        assert isinstance(again.state.phase, Ending)
    else:
        assert next(again.closed).kept.round == number + 1
        assert not any(isinstance(action, Fail) for action in done)


def test_a_late_part_of_a_closed_round_is_ignored() -> None:
    """It was fetched after the others' patience: it neither counts twice nor for the next round."""
    served = Service()
    served.begin()
    for name in NAMES:
        served.hear(name, part(1))
    served.look()
    served.fetch()
    served.now += 100.0
    served.look()
    (close,) = served.closed
    assert list(close.weights) == ["n1"]
    before = served.state
    served.fetch()
    served.hear("n2", part(1))
    assert served.look() == []
    assert isinstance(served.state.phase, Training)
    assert served.state.phase == before.phase


def test_the_end_needs_the_same_parameters_everywhere() -> None:
    """All get the verdict; a difference is named; one that never ends is waited for in vain."""
    served = Service()
    served.begin()
    for number in (1, 2, 3):
        for name in NAMES:
            served.deliver(name, number)
        served.look()
    for name in NAMES[:2]:
        served.hear(name, Ended(sha256="d" * 64))
    assert served.look() == []
    late = replace(served.state)
    served.hear("n3", Ended(sha256="d" * 64))
    *verdicts, last = served.look()
    assert [verdict.number for verdict in verdicts if isinstance(verdict, FeedWords)] == [6] * 3
    assert last == EndService()

    served.state = late
    served.now += END_S + 1
    assert served.look()[-1] == EndService()
    served.state = late
    served.hear("n3", Ended(sha256="e" * 64))
    (failed,) = served.look()
    assert isinstance(failed, Fail)
    assert "n3 eeeeeeeeeeee" in failed.why


def test_nodes_that_never_join_are_waited_for_until_the_deadline() -> None:
    """Then those that are there begin."""
    served = Service()
    served.hear("n2", joined())
    assert served.look() == []
    served.now += JOIN_S - 1
    assert served.look() == []
    served.now += 2
    begun = [action.node for action in served.look() if isinstance(action, FeedWords)]
    assert begun == ["n2"]


def test_a_lost_source_of_parameters_is_replaced_while_nobody_else_was_told() -> None:
    """The next newest is asked; after a takeover others may have been told, and all ends."""
    served = Service()
    for name, at in zip(NAMES, (0, 4, 2), strict=True):
        served.hear(name, joined(at, str(at)))
    (_, asked) = served.look()
    assert isinstance(asked, FeedWords)
    assert (asked.node, asked.words["offer"]) == ("n2", True)
    saved = next(action.kept for action in served.done if isinstance(action, SaveStart))
    served.lose("n2")
    (_, asked) = served.look()
    assert isinstance(asked, FeedWords)
    assert (asked.node, asked.words["step"]) == ("n3", 2)
    served.hear("n3", Offered(name="parameters.bin", bytes=400, sha256="f" * 64))
    (fetch,) = served.look()
    assert isinstance(fetch, FetchParameters)
    served.send(ParametersFetched())
    assert [type(action) for action in served.look()] == [FeedParameters, FeedWords]

    again = Service(saved)
    again.lose("n2")
    for name, at in zip(NAMES, (0, 4, 2), strict=True):
        again.hear(name, joined(at, str(at)))
    assert isinstance(again.look()[-1], Fail)


def test_nobody_left_before_the_beginning_ends_the_service() -> None:
    """Without a verdict: the run knows why."""
    served = Service()
    assert served.look() == []
    assert isinstance(served.state.phase, Joining)
    for name in NAMES:
        served.lose(name)
    assert served.look() == [EndService()]
    assert isinstance(served.state.phase, Over)


def test_no_part_that_counts_ends_the_training_with_the_reason() -> None:
    """Rather than a round of nothing."""
    served = Service()
    served.begin()
    for name in NAMES:
        served.hear(name, part(1))
    served.look()
    for _ in NAMES:
        served.fetch(counts=False)
    (failed,) = served.look()
    assert failed == Fail("no part of round 1 was acceptable")


def test_of_many_rounds_in_which_nothing_happened_few_are_reported() -> None:
    """The first, the last, and one every two seconds."""
    summed = replace(TERMS, round_steps=1, exchanged=Exchanged.GRADIENTS)
    served = Service()
    for name in NAMES:
        served.hear(name, joined(terms=summed))
    served.look()
    for number in range(1, summed.last_round + 1):
        for name in NAMES:
            served.deliver(name, number)
        served.look()
    published = [action for action in served.done if isinstance(action, PublishUpdate)]
    assert len(published) == summed.last_round
    reported = [a.summary.round for a in published if a.summary is not None]
    assert reported == [1, summed.last_round]


@settings(max_examples=30, deadline=None)
@given(lost=st.sampled_from(NAMES), at=st.integers(1, 5))
def test_a_lost_nodes_rows_are_missing_from_one_step_at_most(lost: str, at: int) -> None:
    """Of nodes that sum gradients: the step in which it was lost. The next one has all rows."""
    summed = replace(TERMS, round_steps=1, exchanged=Exchanged.GRADIENTS)
    service = Service()
    for name in NAMES:
        service.hear(name, joined(terms=summed))
    service.look()
    for number in range(1, summed.last_round + 1):
        if number == at:
            service.lose(lost)
        for name in service.living:
            service.deliver(name, number)
        while service.fetching:
            service.fetch()
        service.look()
    closed = [action for action in service.done if isinstance(action, CloseRound)]
    assert len(closed) == summed.last_round
    begun = next(a.words["shares"] for a in service.done if isinstance(a, FeedWords))
    shares = {1: begun["1"]}  # of each round, as its nodes were given them before they began it
    for action in closed:
        after = action.kept.round + 1
        shares[after] = action.header["shares"][str(after)]
    index = NAMES.index(lost)
    missing = [number for number, row in shares.items() if number >= at and row[index] > 0]
    assert missing == [at]
    assert all(sum(row) == pytest.approx(1) for row in shares.values())
