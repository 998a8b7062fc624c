"""Who is blamed: by what lines are worth, by time, by endings; never who only suffered."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
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
from orchestrator.core.diagnosis.first_cause import find_first_cause
from orchestrator.core.diagnosis.line_prefixes import read_head
from orchestrator.core.diagnosis.line_times import read_time
from orchestrator.core.diagnosis.matching import match_rules
from orchestrator.core.diagnosis.rules import BY_ID, RULES
from orchestrator.core.diagnosis.verdict import telling_lines
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
    found = find_first_cause(clues, ends=ends).diagnosis
    assert found is not None
    return found


def _is_open(found: Clue) -> bool:
    return found.rule.role is LogRole.VAGUE or found.rule.aftermath


def _place(found: Clue) -> tuple[float | None, str]:
    return found.at, found.rule.id


# Time is no part of what these tests say, and processors are shared.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
clues = st.builds(
    clue,
    st.sampled_from([rule.id for rule in RULES if not rule.explains]),
    st.integers(0, 7),
    st.none() | st.floats(0, 1e6),
    st.integers(1, 1000),
)


@patient
@given(st.lists(clues, min_size=1, max_size=12))
def test_the_first_cause_is_never_worth_less_than_another_clue(several: list[Clue]) -> None:
    """Whatever was written when: a cause before a failure, before those who suffered. Only what has
    no reason of its own may be explained by whom its writer lost.
    """
    found = find_first_cause(several)
    worth = min(c.rule.role for c in several)
    open_end = all(_is_open(c) for c in several if c.rule.role < LogRole.VICTIM)

    if worth is LogRole.HARMLESS:
        assert found.diagnosis is None
    else:
        assert found.diagnosis is not None
        role = BY_ID[found.diagnosis.id].role
        assert role is worth or (open_end and role <= LogRole.VICTIM)
        assert 1 <= len(found.diagnosis.evidence) <= MAX_EVIDENCE


@patient
@given(several=st.lists(clues, min_size=1, max_size=8, unique_by=_place), seed=st.integers())
def test_the_order_of_reading_does_not_decide(several: list[Clue], seed: int) -> None:
    """The same logs in another order name the same rule."""
    shuffled = [*several]
    random.Random(seed).shuffle(shuffled)
    first, second = find_first_cause(several).diagnosis, find_first_cause(shuffled).diagnosis

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


@pytest.mark.parametrize("at", [None, 100.0])
def test_of_ranks_that_say_the_same_the_one_that_failed_is_named(at: float | None) -> None:
    """The others were stopped, or failed after it: one failure is told of one rank."""
    same = [clue("PY-EXC-001", rank, at) for rank in range(3)]
    one = End(source=source(1), outcome=Exited(1))
    later = End(source=source(0), outcome=Exited(1))

    assert blamed(*same, ends=(one,)).rank == 1
    assert blamed(*same, ends=(one, later)).rank == 1
    assert blamed(*same).rank == 0


def test_a_kernels_line_counts_though_no_rank_wrote_it() -> None:
    """It is nobody's that could have failed."""
    kernel = Clue(rule=BY_ID["XID-BUS-001"], source=LogSource(name="dmesg"), line=9, text="Xid 79")
    one = End(source=source(1), outcome=Exited(1))

    assert blamed(kernel, clue("PY-MOD-001", 1), ends=(one,)).id == "XID-BUS-001"


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
    found = find_first_cause(waiting, sources=[source(rank) for rank in range(4)]).diagnosis

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


def test_beside_a_sigkill_stand_no_warnings_of_the_start_and_not_our_own_stop() -> None:
    """Its evidence is the signal, and who lost the rank because of it."""
    start = (
        "libibverbs: Warning: couldn't load driver 'libsiw-rdmav34.so'\n"
        "[W321 02:07:01.0 socket.cpp:764] [c10d] The client socket has failed to connect to "
        "[::1]:29500 (errno: 111 - Connection refused).\n"
        "WARNING 03-21 02:07:01 [a.py:3] No module named 'flash_attn', using another\n"
        "gpu01:41:41 [0] NCCL INFO NET/Socket : Using [0]eth0:192.0.2.4<0>\n"
        "gpu01:41:41 [0] NCCL INFO NET/IB : No device found.\n"
    )
    stopped = (
        "[2026-03-21 02:09:00,123] torch.distributed.elastic.multiprocessing.api: [WARNING] "
        "Sending process 4711 closing signal SIGTERM\n"
        "torch.distributed.elastic.multiprocessing.api.SignalException: Process 40 got signal: 15\n"
        "slurmstepd: error: *** STEP 9.0 ON gpu01 CANCELLED AT 2026-03-21T02:09:00 ***\n"
    )
    lost = (
        "gpu01:42:99 [1] include/socket.h:1 NCCL WARN Net : Connection closed by remote peer "
        "192.0.2.4<20368>\n"
    )
    end = End(source=source(0), outcome=Signalled(9))
    clues = [
        *match_rules(start, source(0)).clues,
        *match_rules(start + lost + stopped, source(1)).clues,
        *match_rules(stopped, LogSource(name="launcher.err")).clues,
    ]

    found = find_first_cause(clues, ends=(end,)).diagnosis

    assert found is not None
    assert (found.id, found.rank) == ("HOST-KILL-001", 0)
    assert [line.place for line in found.evidence] == ["rank-0.log", "rank-1.log:6"]
    assert "NCCL WARN" in found.evidence[1].text


def test_an_exit_without_a_reason_is_shown_with_the_last_loud_lines() -> None:
    """Who ended first is known, why is not; the lines that may say it stand beside it."""
    text = "srun: error: n3: task 5: Exited with exit code 9\n"
    tails = telling_lines({"x.log": [(1, "ERROR: the widget is bent")], "y.log": [(1, text)]})
    findings = find_first_cause(match_rules(text, LogSource(name="y.log")).clues, telling=tails)

    assert findings.diagnosis is not None
    assert (findings.diagnosis.id, findings.diagnosis.node) == ("LAUNCH-EXIT-001", "n3")
    assert [line.place for line in findings.telling] == ["x.log:1"]
    assert find_first_cause([clue("PY-MOD-001", 0)], telling=tails).telling == ()


def test_a_mere_warning_is_no_cause_where_something_failed() -> None:
    """What a program says at the level of a warning it survived."""
    (warned,) = match_rules(
        "WARNING 03-21 02:07:01 [a.py:3] ModuleNotFoundError: No module named 'apex'\n", source(0)
    ).clues
    (died,) = match_rules("ValueError: batch of 0 rows\n", source(0), first_line=9).clues

    assert warned.role is LogRole.CONDITION
    assert blamed(warned, died).id == "PY-EXC-001"
    assert blamed(warned).confidence is Confidence.POSSIBLE


def test_native_code_that_ended_because_its_rank_waited_is_not_the_cause() -> None:
    """A watchdog throws: what it waited for says more; alone, the throw is all there is."""
    throw = "terminate called after throwing an instance of 'std::runtime_error'\n"
    wait = (
        "[E321 02:07:08.4 ProcessGroupNCCL.cpp:607] [Rank 0] Watchdog caught collective operation "
        "timeout: WorkNCCL(SeqNum=9, OpType=ALLREDUCE, Timeout(ms)=60000) ran for 60060 "
        "milliseconds before timing out.\n"
    )

    assert blamed(*match_rules(wait + throw, source(0)).clues).id == "TORCH-COLL-001"
    assert blamed(*match_rules(throw, source(0)).clues).id == "PY-ABORT-001"
    assert blamed(*match_rules(throw + wait, source(0)).clues).id == "PY-ABORT-001"


def test_what_costs_speed_explains_no_rank_that_failed() -> None:
    """TCP instead of InfiniBand is a finding, and no reason for an exit with code 3."""
    slow = clue("NCCL-IB-006", 0)

    assert blamed(slow).id == "NCCL-IB-006"
    assert (
        find_first_cause([slow], ends=[End(source=source(0), outcome=Exited(3))]).diagnosis is None
    )


def test_harmless_lines_are_seen_and_not_blamed() -> None:
    """They are neither the cause nor among the other things found wrong."""
    alone = find_first_cause([clue("NCCL-IB-008", 0)])
    found = find_first_cause([clue("NCCL-IB-008", 0, 1.0), clue("PY-EXC-001", 1, 99.0)])

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

    assert find_first_cause([]).diagnosis is None
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
    (found,) = match_rules(text, source(0)).clues

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
    assert [found.rule.id for found in match_rules(line, source(0)).clues] == [rule]


def test_numbers_of_lines_are_those_of_editors() -> None:
    """A carriage return redraws a line, it does not begin one."""
    text = "a\n10%\r20%\r30% ModuleNotFoundError: No module named 'peft'\n\nKilled\n"

    assert [found.line for found in match_rules(text, source(0)).clues] == [2, 4]


@pytest.mark.parametrize("prefix", ["", "[rank0]: ", "2026-05-01 10:00:00 "])
@pytest.mark.parametrize(
    "frame", ['File "<string>", line 1, in <module>', 'File "fused.pyx", line 41, in run']
)
def test_an_exception_after_a_frame_without_text_is_heard(prefix: str, frame: str) -> None:
    """Only text that stands deeper than its frame is quoted."""
    error = "ModuleNotFoundError: No module named 'flash_attn'"
    bare = f"{prefix}Traceback (most recent call last):\n{prefix}  {frame}\n{prefix}{error}\n"
    quoted = f"{prefix}  {frame}\n{prefix}    raise {error}\n"

    assert "PY-MOD-001" in {found.rule.id for found in match_rules(bare, source(0)).clues}
    assert not match_rules(quoted, source(0)).clues


def test_what_only_follows_is_not_blamed_beside_what_explains_it() -> None:
    """A file system without inodes says that its disk is full; alone, the words count."""
    follows, explains = clue("HOST-DISK-001", 0, line=1), clue("HOST-INODE-001", 1, line=9)

    assert blamed(follows, explains).id == "HOST-INODE-001"
    assert blamed(follows).id == "HOST-DISK-001"
    assert blamed(explains).confidence is Confidence.POSSIBLE


@pytest.mark.parametrize(
    "end, cause",
    [
        ("{'train_runtime': 20.5, 'epoch': 3.0}\n", None),
        ("step 12 loss 1.5\n", "CUDA-OOM-001"),
        ("Training completed.\nOSError: [Errno 122] Disk quota exceeded\n", "HOST-DISK-001"),
    ],
)
def test_a_run_that_ended_well_had_no_cause_to_fail(end: str, cause: str | None) -> None:
    """What it met before, it got over; not so where something failed after that."""
    log = "torch.OutOfMemoryError: CUDA out of memory.\nstep 11 loss 1.6\n" + end

    found = match_rules(log, source(0))

    diagnosis = find_first_cause(found.clues, remarks=found.remarks).diagnosis
    assert (diagnosis and diagnosis.id) == cause


@pytest.mark.parametrize(
    "line",
    [
        "CUDA out of memory. Retrying with batch size 32",
        "x.py:3: UserWarning: The NVIDIA driver on your system is too old (found version 11040)",
        "thrown while requesting HEAD https://huggingface.co/a: Failed to resolve 'huggingface.co'",
    ],
)
def test_what_a_program_says_while_it_goes_on_is_no_cause_beside_a_failure(line: str) -> None:
    """By its words, where no level tells."""
    (survived,) = match_rules(line + "\n", source(0)).clues
    (died,) = match_rules("ValueError: batch of 0 rows\n", source(0), first_line=9).clues

    assert survived.role is LogRole.CONDITION
    assert blamed(survived, died).id == "PY-EXC-001"


@pytest.mark.parametrize(
    "line",
    [
        'item 11 prompt: "my run says CUDA out of memory. Tried to allocate 2.00 GiB"',
        'assistant: "install it: ModuleNotFoundError: No module named torch"',
        '[data] sample: "Permission denied (publickey)" kept',
    ],
)
def test_what_a_model_was_asked_happened_to_somebody_else(line: str) -> None:
    """Quoted speech holds no signs."""
    assert match_rules(line + "\n", source(0)).clues == ()


def test_a_line_of_nobody_is_about_whom_the_same_finding_names() -> None:
    """Slurm tells of a kill twice, and only once of whom."""
    log = (
        "slurmstepd: error: Detected 1 oom_kill event in StepId=9.0.\n"
        "srun: error: gpu7: task 11: Out Of Memory\n"
    )

    found = blamed(*match_rules(log, LogSource(name="job.log")).clues)

    assert (found.node, found.rank) == ("gpu7", 11)
    assert found.evidence[0].place == "job.log:1"


LOGIN = "wandb: ERROR api_key not configured (no-tty)"
RAISED = "Traceback (most recent call last):\nKeyError: 'input_ids'"


def judged(text: str) -> Diagnosis:
    found = find_first_cause(match_rules(text, LogSource(name="job.log")).clues).diagnosis
    assert found is not None
    return found


def test_what_its_writer_trained_on_after_is_no_cause() -> None:
    """Steps of another rank say nothing of it."""
    went_on = judged(f"{LOGIN}\n{{'loss': 1.7, 'epoch': 0.01}}\n{RAISED}\n")
    others = judged(f"[rank1]: {LOGIN}\n[rank0]: step 12 loss 0.4\n")

    assert went_on.id == "PY-EXC-001"
    assert "TRACK-AUTH-001" in went_on.besides[0]
    assert (others.id, others.rank) == ("TRACK-AUTH-001", 1)


def test_a_cause_is_not_certain_where_its_writer_raised_something_else_later() -> None:
    """Both are told."""
    alone, both = judged(f"{LOGIN}\n"), judged(f"{LOGIN}\n{RAISED}\n")

    assert (alone.id, alone.confidence) == ("TRACK-AUTH-001", Confidence.CERTAIN)
    assert (both.id, both.confidence) == ("TRACK-AUTH-001", Confidence.LIKELY)
    assert "PY-EXC-001: " in both.besides[0]


def test_a_line_of_no_rank_is_about_the_rank_that_tells_the_same_or_what_follows() -> None:
    where = "/pytorch/aten/src/ATen/native/cuda/Indexing.cu:1422: indexSelectSmallIndex: "
    index = (
        f"{where}block: [6,0,0], thread: [96,0,0] Assertion `srcIndex < srcSelectDimSize` failed.\n"
    )
    follows = "[rank3]: RuntimeError: CUDA error: device-side assert triggered\n"
    peer = "NCCL WARN Cuda failure 217 'peer access is not supported between these two devices'\n"

    assert judged(index + follows).rank == 3
    assert judged(index + follows + follows.replace("3", "4")).rank is None
    same = judged(f"box:9:9 [1] {peer}[rank1]: {peer}")
    assert (same.node, same.rank) == ("box", 1)


@pytest.mark.parametrize(
    "line, split",
    [
        ("ValueError: hidden size 100 is not divisible by 16", True),
        ("AssertionError: 40 is not divisible by tensor_model_parallel_size 16", True),
        ("ValueError: image height 30 is not divisible by 16", False),
        ("ValueError: 30 is not divisible by 16", False),
        ("ValueError: batch of 30 rows is not divisible by 4 ranks", False),
    ],
)
def test_a_number_that_does_not_divide_is_no_split_model_by_itself(line: str, split: bool) -> None:
    found = find_first_cause(match_rules(line, LogSource(name="y.log")).clues)
    named = found.diagnosis is not None and found.diagnosis.id == "SERVE-SPLIT-001"
    assert named is split
