"""What doctor says of counters between two looks, and of faults that come back after weeks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.doctor.check_model import Level, PastLook, Reading, State, Subject
from orchestrator.core.doctor.checkup import looks_at, looks_to_keep, run_checks
from orchestrator.core.doctor.rules.counter_rates import LIMITS, judge_growth
from orchestrator.core.doctor.rules.repeats import count_repairs
from orchestrator.core.model.facts import Facts, StuckProcess, Xid
from tests.core.world import node_spec
from tests.fixtures.machines import Machine, build

DAY_S = 86_400.0
NOW = 1_800_000_000.0
STUCK = StuckProcess(pid=77, started=4711, sleeps=17, state="D", name="cp", user="root")
LOST = Xid(code=79, pci="0000:33:00", count=1, in_a_day=1)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return build(tmp_path_factory.mktemp("good"), Machine(name="n1"))


def reading(check: str, subject: Subject, level: Level = Level.TWO_MINUTES) -> Reading:
    examined = run_checks([subject], level)
    return next(one for one in examined.readings if one.check == f"OR-DOC-{check}")


def past(days_ago: float, *failed: str, boot: str = "old", xids: tuple[Xid, ...] = ()) -> PastLook:
    ids = tuple(f"OR-DOC-{check}" for check in failed)
    at = NOW - days_ago * DAY_S
    return PastLook(at=at, node="n1", address="n1", boot_id=boot, failed=ids, xids=xids)


def seen(good: Facts, *looks: PastLook) -> Subject:
    return Subject(spec=node_spec("n1"), facts=good, past=looks, at=NOW)


# ---- counters as rates --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "counter,grown,apart_s,expected",
    [
        ("link_downed", 1, 3600.0, State.FAIL),
        ("rnr_nak_retry_err", 1, 3600.0, State.FAIL),
        ("symbol_error", 2, 90.0, State.WARN),
        ("symbol_error", 4, 90.0, State.FAIL),
        ("link_error_recovery", 7, 90.0, State.WARN),
        ("link_error_recovery", 8, 90.0, State.FAIL),
        ("port_xmit_discards", 9000, 90.0, State.WARN),
        ("port_xmit_discards", 9001, 90.0, State.FAIL),
        ("carrier_changes", 2, 90.0, State.WARN),
        ("carrier_changes", 3, 90.0, State.FAIL),
        ("out_of_sequence", 10_000, 90.0, State.WARN),
        ("port_rcv_errors", 1, None, State.FAIL),
        ("port_rcv_errors", 0, 90.0, State.OK),
        ("port_rcv_errors", -5, 90.0, State.OK),
    ],
)
def test_a_counter_is_judged_by_its_rate(
    counter: str, grown: int, apart_s: float | None, expected: State
) -> None:
    assert judge_growth(counter, grown, apart_s).state is expected


@given(st.sampled_from(sorted(LIMITS)), st.integers(1, 10**9), st.floats(1.0, 1e6))
def test_more_errors_in_the_same_time_are_never_judged_better(
    counter: str, grown: int, apart_s: float
) -> None:
    gravity = [State.OK, State.WARN, State.FAIL]
    fewer, more = (judge_growth(counter, count, apart_s).state for count in (grown, 2 * grown))
    assert gravity.index(fewer) <= gravity.index(more)
    assert fewer is not State.OK


def test_two_looks_are_apart_by_the_clock_of_the_node(good: Facts) -> None:
    later = replace(good, uptime_s=1090.0)
    assert Subject(spec=node_spec("n1"), facts=good, later=later).apart_s == 90.0
    rebooted = replace(later, boot_id="another")
    assert Subject(spec=node_spec("n1"), facts=good, later=rebooted).apart_s is None


def test_only_one_sleep_that_lasted_is_stuck(good: Facts) -> None:
    first = replace(good, stuck=(STUCK,))
    slept_again = replace(STUCK, sleeps=18)
    unknown = replace(STUCK, sleeps=None)

    def after(*stuck: StuckProcess) -> State:
        later = replace(first, stuck=stuck)
        subject = Subject(spec=node_spec("n1"), facts=first, later=later)
        return reading("GROW-004", subject).state

    assert after(STUCK) is State.FAIL
    assert after(slept_again) is State.OK
    assert after(unknown) is State.OK
    assert after() is State.OK
    assert (
        "root's cp (pid 77, D)"
        in reading("HOST-007", Subject(spec=node_spec("n1"), facts=first)).what
    )


# ---- what comes back ----------------------------------------------------------------------------


def test_a_fault_of_a_gpu_that_outlives_a_reboot_is_named(good: Facts) -> None:
    facts = replace(good, boot_id="new", xids=(LOST,))
    again = reading("HIST-001", seen(facts, past(3, boot="old", xids=(LOST,))))
    assert again.state is State.FAIL
    assert "Xid 79 at 0000:33:00 in 2 boots" in again.what
    same_boot = seen(facts, past(3, boot="new", xids=(LOST,)))
    long_ago = seen(facts, past(40, boot="old", xids=(LOST,)))
    of_a_program = seen(facts, past(3, xids=(replace(LOST, code=13),)))
    for subject in (same_boot, long_ago, of_a_program):
        assert reading("HIST-001", subject).state is State.OK


def test_five_repairs_in_a_week_take_a_node_out(good: Facts) -> None:
    broken_and_well = [(0.1 + number, failed) for number in range(5) for failed in ("", "GPU-003")]
    looks = [past(days, *filter(None, [failed])) for days, failed in reversed(broken_and_well)]
    assert count_repairs(looks) == 5
    assert reading("HIST-002", seen(good, *looks)).state is State.FAIL
    fewer = [past(8, "GPU-003"), past(7.5), *looks[2:]]
    assert reading("HIST-002", seen(good, *fewer)).state is State.OK


def test_a_node_that_does_not_answer_is_repaired_once_when_it_does() -> None:
    looks = [past(4, "GPU-003"), past(3, "NODE-001"), past(2, "NODE-001"), past(1)]
    assert count_repairs(looks) == 1


def test_a_record_that_cannot_be_read_is_unknown(good: Facts) -> None:
    subject = Subject(spec=node_spec("n1"), facts=good, past=None)
    assert {reading(f"HIST-00{n}", subject).state for n in (1, 2)} == {State.UNKNOWN}


def test_what_is_kept_is_what_every_examination_looks_at(good: Facts) -> None:
    grown = replace(good, stuck=(STUCK,), xids=(LOST,))
    subject = Subject(spec=node_spec("n1"), facts=grown, later=grown, at=NOW)
    (kept,) = looks_to_keep(run_checks([subject], Level.TWO_MINUTES), [subject])
    assert kept.failed == ("OR-DOC-GPU-005",), "not the check that needs a second look"
    assert kept.xids == (LOST,)
    looks = [kept, replace(kept, address="elsewhere")]
    assert looks_at(looks, [subject.spec]) == {"n1": (kept,)}


@pytest.mark.parametrize("now,expected", [(90, State.OK), (91, State.WARN), (95, State.FAIL)])
def test_memory_without_a_limit_has_the_usual_one(good: Facts, now: int, expected: State) -> None:
    first, *rest = good.gpus
    hot = replace(first, memory_temperature_c=now, memory_temperature_max_c=None)
    subject = Subject(spec=node_spec("n1"), facts=replace(good, gpus=(hot, *rest)))
    assert reading("GPU-018", subject).state is expected
