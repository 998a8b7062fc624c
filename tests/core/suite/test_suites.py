"""The order of steps, what records say of them, and how a suite ends."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.errors import ExitCode, UsageError
from orchestrator.core.suite.step_records import (
    Pursuit,
    StepRecord,
    StepRecordKind,
    StepState,
    fold_steps,
    open_steps,
    pursue_step,
    suite_exit_code,
    suite_status,
)
from orchestrator.core.suite.suite_model import (
    CycleError,
    Step,
    Suite,
    ordered_steps,
    select_steps,
)
from orchestrator.core.verdict.result import Status

NAMES = "abcdef"


def suite_of(*steps: Step) -> Suite:
    return Suite(name="s", source="s.yaml", steps=steps)


def finished(step: str, status: str, at: float = 2.0) -> StepRecord:
    kind = StepRecordKind.FINISHED
    return StepRecord(kind=kind, step=step, at=at, run_id=f"r-{step}", status=status, exit_code=0)


def order_of(steps: tuple[Step, ...]) -> tuple[list[str], tuple[str, ...]]:
    """The steps in order, or the cycle that is in the way."""
    try:
        return [step.name for step in ordered_steps(steps)], ()
    except CycleError as cycle:
        return [], cycle.names


@st.composite
def any_steps(draw: st.DrawFn) -> tuple[Step, ...]:
    """Steps that wait for any others, also for themselves and each other."""
    names = draw(st.permutations(NAMES))[: draw(st.integers(1, len(NAMES)))]
    waits = st.lists(st.sampled_from(NAMES), max_size=3)
    return tuple(Step(name=name, workload="w", after=tuple(draw(waits))) for name in names)


@given(any_steps())
def test_steps_come_after_those_that_they_name_or_are_a_cycle(steps: tuple[Step, ...]) -> None:
    known = {step.name: step for step in steps}
    names, cycle = order_of(steps)
    if cycle:
        assert cycle[0] == cycle[-1]
        assert len(cycle) > 1
        for waiting, awaited in pairwise(cycle):
            assert awaited in known[waiting].after
        return
    assert sorted(names) == sorted(known)
    for step in steps:
        assert all(names.index(a) < names.index(step.name) for a in step.after if a in known)


def test_the_order_of_the_file_is_kept_where_nothing_else_is_asked() -> None:
    steps = [
        Step(name="c", workload="w", after=("a",)),
        *(Step(name=n, workload="w") for n in "ba"),
    ]

    assert [step.name for step in ordered_steps(steps)] == ["b", "a", "c"]


def test_only_and_skip_say_why_a_step_is_left_out() -> None:
    suite = suite_of(*(Step(name=name, workload="w") for name in ("load", "power", "stress")))

    assert select_steps(suite, ["load", "power"], ["power"]) == {
        "power": "--skip power",
        "stress": "not in --only",
    }
    assert select_steps(suite, [], []) == {}
    with pytest.raises(UsageError, match="no step 'loadd'") as refused:
        select_steps(suite, ["loadd"], [])
    assert "did you mean 'load'?" in refused.value.remedy
    with pytest.raises(UsageError, match="leave no step to run"):
        select_steps(suite, ["load"], ["load"])


STATUSES = st.sampled_from([*Status, None])


@given(st.lists(st.tuples(st.booleans(), STATUSES), min_size=1, max_size=6))
def test_exit_codes_follow_from_core_steps_alone(ends: list[tuple[bool, Status | None]]) -> None:
    """1 if a core step failed, 75 while steps are open, 0 else; never success for what is not."""
    steps = [Step(name=f"s{i}", workload="w", optional=o) for i, (o, _) in enumerate(ends)]
    records = [finished(f"s{i}", status) for i, (_, status) in enumerate(ends) if status]
    outcomes = fold_steps(suite_of(*steps), records)
    status = suite_status(outcomes)

    are_open = any(status in (None, Status.STOPPED) for _, status in ends)
    core_failed = any(status is Status.FAILED for optional, status in ends if not optional)
    expected = ExitCode.BUSY if are_open else ExitCode.RUN_FAILED if core_failed else ExitCode.DONE
    assert suite_exit_code(status) is expected
    assert (status is Status.SUCCEEDED) == all(end is Status.SUCCEEDED for _, end in ends)
    assert {each.step for each in open_steps(outcomes)} == {
        f"s{i}" for i, (_, status) in enumerate(ends) if status in (None, Status.STOPPED)
    }


def test_a_step_that_was_begun_and_killed_keeps_its_run_and_its_beginning() -> None:
    records = [
        StepRecord(kind=StepRecordKind.STARTED, step="a", at=1.0, run_id="r"),
        StepRecord(kind=StepRecordKind.STARTED, step="a", at=5.0, run_id="r"),
        finished("a", "succeeded", at=9.0),
        finished("unknown", "failed"),
    ]
    suite = suite_of(Step(name="a", workload="w"))
    (begun,) = fold_steps(suite, records[:1])
    (done,) = fold_steps(suite, records)

    assert (begun.state, begun.run_id) == (StepState.BEGUN, "r")
    assert (done.state, done.seconds) == (StepState.PASSED, 8.0)


def test_time_between_a_stop_and_its_continuation_is_not_spent() -> None:
    """3 s until it was stopped, 4 s of a coordinator that died unseen, then 5 s."""
    records = [
        StepRecord(kind=StepRecordKind.STARTED, step="a", at=10.0, run_id="r"),
        finished("a", "stopped", at=13.0),
        StepRecord(kind=StepRecordKind.CONTINUED, step="a", at=100.0, run_id="r", seconds=3.0),
        StepRecord(kind=StepRecordKind.CONTINUED, step="a", at=200.0, run_id="r", seconds=7.0),
        finished("a", "succeeded", at=205.0),
    ]
    states = [fold_steps(suite_of(Step(name="a", workload="w")), records[:n])[0] for n in range(6)]

    assert [state.seconds_until(210.0) for state in states] == [None, 200.0, 3.0, 113.0, 17.0, 12.0]
    assert [state.seconds for state in states] == [None, None, 3.0, 3.0, 7.0, 12.0]
    assert states[4].state is StepState.BEGUN


@pytest.mark.parametrize(
    "exists, alive, ended, again, overdue, pursuit",
    [
        (False, False, None, False, False, Pursuit.RUN),
        (True, True, None, False, False, Pursuit.ATTACH),
        (True, False, None, False, False, Pursuit.RESUME),
        (True, False, Status.SUCCEEDED, True, False, Pursuit.NOTHING),
        (True, False, Status.FAILED, True, False, Pursuit.NOTHING),
        (True, False, Status.STOPPED, True, False, Pursuit.RESUME),
        (True, False, Status.STOPPED, False, False, Pursuit.NOTHING),
        (False, False, None, False, True, Pursuit.NOTHING),
        (True, True, None, False, True, Pursuit.STOP),
        (True, False, None, False, True, Pursuit.STOP),
        (True, False, Status.STOPPED, True, True, Pursuit.NOTHING),
        (True, False, Status.SUCCEEDED, True, True, Pursuit.NOTHING),
    ],
)
def test_a_run_is_continued_within_its_limit_and_never_repeated(
    *, exists: bool, alive: bool, ended: Status | None, again: bool, overdue: bool, pursuit: Pursuit
) -> None:
    found = pursue_step(exists=exists, alive=alive, ended=ended, again=again, overdue=overdue)

    assert found is pursuit
