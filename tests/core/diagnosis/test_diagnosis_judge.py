"""Who is blamed: by what lines are worth, by time, by endings; never who only suffered."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.outcome import Exited, Signalled
from orchestrator.core.diagnosis.diagnosis_model import (
    MAX_EVIDENCE,
    Clue,
    Confidence,
    Diagnosis,
    End,
    LogRole,
    LogSource,
)
from orchestrator.core.diagnosis.facts_as_clues import from_facts
from orchestrator.core.diagnosis.first_cause import judge, telling_lines
from orchestrator.core.diagnosis.line_prefixes import read_head
from orchestrator.core.diagnosis.line_times import read_time
from orchestrator.core.diagnosis.matching import examine
from orchestrator.core.diagnosis.rules import BY_ID, RULES
from orchestrator.core.model.facts import Facts, Hca

OOM = BY_ID["CUDA-OOM-001"]
MODULE = BY_ID["PY-MOD-001"]
EXCEPTION = BY_ID["PY-EXC-001"]
WATCHDOG = BY_ID["TORCH-COLL-001"]
HARMLESS = BY_ID["NCCL-IB-008"]


def source(rank: int) -> LogSource:
    return LogSource(name=f"rank-{rank}.log", rank=rank)


def clue(rule: str, rank: int, at: float | None = None, line: int = 1) -> Clue:
    return Clue(rule=BY_ID[rule], source=source(rank), line=line, text=rule, at=at)


def blamed(*clues: Clue, ends: tuple[End, ...] = ()) -> Diagnosis:
    found = judge(clues, ends=ends).diagnosis
    assert found is not None
    return found


clues = st.builds(
    clue,
    st.sampled_from([rule.id for rule in RULES]),
    st.integers(0, 7),
    st.none() | st.floats(0, 1e6),
    st.integers(1, 1000),
)


@given(st.lists(clues, min_size=1, max_size=12))
def test_the_first_cause_is_never_worth_less_than_another_clue(several: list[Clue]) -> None:
    """Whatever was written when: a cause before a failure, before those who suffered."""
    found = judge(several)
    worth = min(c.rule.role for c in several)

    if worth is LogRole.HARMLESS:
        assert found.diagnosis is None
    else:
        assert found.diagnosis is not None
        assert BY_ID[found.diagnosis.id].role is worth
        assert 1 <= len(found.diagnosis.evidence) <= MAX_EVIDENCE


@given(st.lists(clues, min_size=1, max_size=8, unique_by=lambda c: (c.at, c.rule.id)), st.randoms())
def test_the_order_of_reading_does_not_decide(several: list[Clue], chance: random.Random) -> None:
    """The same logs in another order name the same rule."""
    shuffled = [*several]
    chance.shuffle(shuffled)
    first, second = judge(several).diagnosis, judge(shuffled).diagnosis

    assert (first and first.id) == (second and second.id)


def test_the_earlier_of_two_causes_is_the_first() -> None:
    """Time decides, not how specific a rule is."""
    found = blamed(clue("CUDA-OOM-001", 0, 100.0), clue("HOST-FILE-001", 1, 40.0))

    assert (found.id, found.rank) == ("HOST-FILE-001", 1)


def test_new_year_does_not_turn_the_order_round() -> None:
    """A log of the last of December is earlier than one of the first of January."""
    before = read_time("[W1231 23:59:58.5 socket.cpp:1] x")
    after = read_time("2027-01-01 00:00:10 y")

    found = blamed(clue("PY-MOD-001", 1, after), clue("CUDA-OOM-001", 0, before))

    assert (found.id, found.rank) == ("CUDA-OOM-001", 0)


def test_what_was_written_in_the_same_second_is_told_apart_by_where_the_fault_is() -> None:
    """Clocks of nodes differ: hardware comes before the program that stumbles over it."""
    found = blamed(clue("CUDA-ERR-001", 0, 100.0), clue("XID-BUS-001", 1, 100.6))

    assert found.id == "XID-BUS-001"
    assert found.confidence is Confidence.LIKELY


def test_without_times_the_order_of_endings_decides() -> None:
    """The coordinator knows which rank failed first."""
    one = (clue("CUDA-OOM-001", 0), clue("PY-MOD-001", 1))
    ends = tuple(End(source=source(rank), outcome=Signalled(6)) for rank in (1, 0))

    assert blamed(*one, ends=ends).id == "PY-MOD-001"
    assert blamed(*one, ends=ends[::-1]).id == "CUDA-OOM-001"


@pytest.mark.parametrize("at", [(None, None), (11.0, 10.5), (None, 10.5)])
@pytest.mark.parametrize("first", [0, 1])
def test_of_ranks_that_say_the_same_the_first_to_end_is_blamed(
    at: tuple[float | None, float | None], first: int
) -> None:
    """Times in logs are no better than clocks are; FAILED and the diagnosis name one rank."""
    several = [clue("PY-EXC-001", rank, at[rank]) for rank in range(2)]
    both = tuple(End(source=source(rank), outcome=Exited(1)) for rank in (first, 1 - first))
    assert blamed(*several, ends=both).rank == first
    assert blamed(*several, ends=both[:1]).rank == first


def test_without_times_and_endings_the_confidence_is_lower() -> None:
    """Two causes on two ranks, and nothing tells which came first: that is said."""
    assert OOM.confidence is Confidence.CERTAIN
    assert blamed(clue("CUDA-OOM-001", 0)).confidence is Confidence.CERTAIN
    assert blamed(clue("CUDA-OOM-001", 0), clue("PY-MOD-001", 1)).confidence is Confidence.LIKELY


def test_those_who_waited_are_counted_once_each() -> None:
    """Several lines of one rank are one rank; who is blamed is none of them."""
    waiting = [clue("TORCH-COLL-001", rank, 500.0, line) for rank in range(8) for line in (1, 2)]
    found = blamed(*waiting, clue("CUDA-OOM-001", 3))

    assert found.consequences == ("7 ranks timed out waiting",)


def test_who_did_not_time_out_is_pointed_at() -> None:
    """Where only time-outs are known, the one that is missing is the one to look at."""
    waiting = [clue("TORCH-COLL-001", rank, 500.0) for rank in (0, 1, 3)]
    found = judge(waiting, sources=[source(rank) for rank in range(4)]).diagnosis

    assert found is not None
    assert found.confidence is Confidence.POSSIBLE
    assert "rank 2 did not: look there first" in found.consequences


def test_a_signal_alone_is_a_failure_without_a_reason() -> None:
    """SIGKILL is named, with little confidence; a kernel's line explains it."""
    end = End(source=source(2), outcome=Signalled(9))
    kernel = Clue(rule=BY_ID["HOST-OOM-001"], source=LogSource(name="dmesg"), line=9, text="Killed")

    assert blamed(ends=(end,)).id == "HOST-KILL-001"
    assert blamed(ends=(end,)).confidence is Confidence.POSSIBLE
    assert blamed(kernel, ends=(end,)).id == "HOST-OOM-001"


def test_what_costs_speed_explains_no_rank_that_failed() -> None:
    """TCP instead of InfiniBand is a finding, and no reason for an exit with code 3."""
    slow = clue("NCCL-IB-006", 0)

    assert blamed(slow).id == "NCCL-IB-006"
    assert judge([slow], ends=[End(source=source(0), outcome=Exited(3))]).diagnosis is None


def test_harmless_lines_are_seen_and_not_blamed() -> None:
    """They are neither the cause nor among the other things found wrong."""
    alone = judge([clue("NCCL-IB-008", 0)])
    found = judge([clue("NCCL-IB-008", 0, 1.0), clue("PY-EXC-001", 1, 99.0)])

    assert (alone.diagnosis, alone.harmless) == (None, (HARMLESS.id,))
    assert found.diagnosis is not None
    assert (found.diagnosis.id, found.harmless) == (EXCEPTION.id, (HARMLESS.id,))
    assert found.diagnosis.besides == ()


def test_a_node_that_may_not_lock_memory_explains_a_vague_error() -> None:
    """A fact counts where somebody suffered; alone it is no more than possible."""
    hca = Hca(name="mlx5_0", port=1, state="ACTIVE", link_layer="InfiniBand")
    facts = list(from_facts({"n": Facts(node="n", hostname="n", memlock_bytes=8192, hcas=(hca,))}))

    assert blamed(*facts, clue("NCCL-SYS-001", 0)).confidence is Confidence.LIKELY
    assert blamed(*facts).confidence is Confidence.POSSIBLE
    assert list(from_facts({"n": Facts(node="n", hostname="n", hcas=(hca,))})) == []


def test_nothing_known_is_said_with_the_last_loud_lines() -> None:
    """No rule, no cause; lines that sound like trouble before those that are merely last."""
    tails = {"a": [(7, "ERROR: the widget is bent"), (8, "bye")], "b": [(3, "done")]}

    assert judge([]).diagnosis is None
    assert [line.place for line in telling_lines(tails)] == ["a:7"]
    assert [line.place for line in telling_lines({"b": [(3, "done")]})] == ["b:3"]


@pytest.mark.parametrize(
    "line, node, rank, text",
    [
        ("[rank3]: boom", "", 3, "boom"),
        ("[rank3]:[E321 02:07:08.4 x.cpp:1] boom", "", 3, "boom"),
        ("[default5]:[rank13]: boom", "", 13, "boom"),
        ("[default5]: boom", "", 5, "boom"),
        ("[gpu02/3] boom", "gpu02", 3, "boom"),
        ("[gpu02/launcher] boom", "gpu02", None, "boom"),
        (" 3: boom", "", 3, "boom"),
        ("[1,3]<stderr>:boom", "", 3, "boom"),
        ("gpu02: boom", "gpu02", None, "boom"),
        ("(RayTrainWorker pid=77, ip=10.0.0.3) boom", "10.0.0.3", None, "boom"),
        ("2026-03-21T02:07:08.123Z [rank4]: boom", "", 4, "boom"),
        ("2026-03-21 02:07:08,123 3: boom", "", 3, "boom"),
        ("Mar 21 02:07:08 gpu02 kernel: NVRM: boom", "gpu02", None, "NVRM: boom"),
        ("gpu02:47:48 [3] NCCL WARN boom", "gpu02", None, "gpu02:47:48 [3] NCCL WARN boom"),
        ("python3: can't open file", "", None, "python3: can't open file"),
        ("KeyError: 3", "", None, "KeyError: 3"),
    ],
)
def test_prefixes_tell_who_wrote_a_line(line: str, node: str, rank: int | None, text: str) -> None:
    """Those of torch, torchrun, srun, mpirun, Ray, clush, syslog, NCCL, and our own."""
    head = read_head(line)

    assert (head.node, head.rank, head.text) == (node, rank, text)


@pytest.mark.parametrize(
    "line",
    [
        "2026-03-21 02:07:08.5 x",
        "[2026-03-21T02:07:08,500Z] x",
        "[rank0]:[E321 02:07:08.500000000 ProcessGroupNCCL.cpp:607] x",
        "[rank0]:[E0321 02:07:08.500 x.cpp:607] x",
    ],
)
def test_times_of_all_formats_compare(line: str) -> None:
    """The same moment is the same number, whoever wrote it."""
    assert read_time(line) == read_time("[Sat Mar 21 02:07:08 2026] x") + 0.5  # type: ignore[operator]


def test_a_line_without_a_time_takes_that_of_the_line_before() -> None:
    """Tracebacks carry no time of their own."""
    text = "2026-03-21 02:07:08 step 3\nTraceback\nModuleNotFoundError: No module named 'peft'\n"
    (found,) = examine(text, source(0)).clues

    assert found.at == read_time("2026-03-21 02:07:08")
    assert found.line == 3


@pytest.mark.parametrize(
    "line, rule",
    [
        (
            "NCCL WARN NET/Socket : peer x<4> message truncated : receiving 9 bytes instead of 6",
            "TORCH-COLL-002",
        ),
        ("Call to ibv_modify_qp failed with error Connection timed out", "NCCL-IB-001"),
        ("Call to ibv_modify_qp failed with error Invalid argument errno 22", "NCCL-IB-002"),
        ("NET/IB : Got completion with error 12, opcode 1, len 0, vendor err 129", "NCCL-IB-003"),
        ("OSError: [Errno 98] Address already in use", "TORCH-RDZV-003"),
        ("srun: error: gpu01: task 3: Out Of Memory", "HOST-OOM-001"),
        ("NCCL WARN Cuda failure 2 'out of memory'", "CUDA-OOM-001"),
        ("bash: line 1: 4711 Killed                  python train.py", "HOST-KILL-001"),
        ("bash: torchrun: command not found", "PY-FILE-001"),
    ],
)
def test_older_and_other_wordings_are_known(line: str, rule: str) -> None:
    """One failure has been worded in several ways over the years."""
    assert [found.rule.id for found in examine(line, source(0)).clues] == [rule]


def test_numbers_of_lines_are_those_of_editors() -> None:
    """A carriage return redraws a line, it does not begin one."""
    text = "a\n10%\r20%\r30% ModuleNotFoundError: No module named 'peft'\n\nKilled\n"

    assert [found.line for found in examine(text, source(0)).clues] == [2, 4]


@pytest.mark.parametrize("prefix", ["", "[rank0]: ", "2026-05-01 10:00:00 "])
@pytest.mark.parametrize(
    "frame", ['File "<string>", line 1, in <module>', 'File "fused.pyx", line 41, in run']
)
def test_an_exception_after_a_frame_without_text_is_heard(prefix: str, frame: str) -> None:
    """Only text that stands deeper than its frame is quoted."""
    error = "ModuleNotFoundError: No module named 'flash_attn'"
    bare = f"{prefix}Traceback (most recent call last):\n{prefix}  {frame}\n{prefix}{error}\n"
    quoted = f"{prefix}  {frame}\n{prefix}    raise {error}\n"

    assert "PY-MOD-001" in {found.rule.id for found in examine(bare, source(0)).clues}
    assert not examine(quoted, source(0)).clues
