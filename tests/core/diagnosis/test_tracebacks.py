"""Which exception of several began it: chains, carried tracebacks, interleaved writers."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orchestrator.core.diagnosis.diagnosis_model import Confidence, Diagnosis, LogSource
from orchestrator.core.diagnosis.first_cause import find_first_cause
from orchestrator.core.diagnosis.matching import match_rules
from orchestrator.core.diagnosis.tracebacks import find_raised

CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"
HANDLED = "\nDuring handling of the above exception, another exception occurred:\n\n"


def raised(error: str, file: str = "a.py") -> str:
    """A traceback that ends in ``error``."""
    return f'Traceback (most recent call last):\n  File "{file}", line 3, in f\n    g()\n{error}\n'


def first(*logs: str) -> Diagnosis:
    """The diagnosis of these logs, each of a file of its own."""
    clues = [
        clue
        for n, text in enumerate(logs)
        for clue in match_rules(text, LogSource(name=f"{n}.log")).clues
    ]
    found = find_first_cause(clues).diagnosis
    assert found is not None
    return found


def prefixed(prefix: str, text: str) -> list[str]:
    return [prefix + line for line in text.splitlines()]


def mixed(*writers: Sequence[str]) -> str:
    """Their lines in turn."""
    longest = max(map(len, writers))
    lines = [w[n] for n in range(longest) for w in writers if n < len(w)]
    return "\n".join(lines) + "\n"


def test_the_first_of_a_chain_is_named() -> None:
    """What was raised from it says less."""
    linker = "ld: cannot find -lcurand: No such file or directory\n"
    log = linker + raised("subprocess.CalledProcessError: Command 'ninja' returned 1")
    log += CAUSED + raised("RuntimeError: Error building extension 'fused'")

    assert first(log).id == "BUILD-LINK-001"
    assert first(log).cause.endswith("no library curand")


def test_the_cause_is_told_though_the_last_says_something_else() -> None:
    """``raise X from Y``: Y began it."""
    log = raised("ValueError: batch of 0 rows") + CAUSED + raised("RuntimeError: step failed")

    assert "batch of 0 rows" in first(log).cause


def test_an_exception_that_was_caught_on_purpose_is_not_it() -> None:
    """A missing key that was handled by a better error."""
    log = raised("KeyError: 'lr'") + HANDLED + raised("ValueError: the config lacks lr")

    assert "the config lacks lr" in first(log).cause


def test_a_known_cause_within_a_handled_exception_is_less_sure() -> None:
    """The program had caught it."""
    alone = first(raised("ModuleNotFoundError: No module named 'apex'"))
    log = raised("ModuleNotFoundError: No module named 'apex'") + HANDLED
    log += raised("RuntimeError: no optimizer left")

    assert alone.confidence is Confidence.CERTAIN
    assert first(log).confidence is not Confidence.CERTAIN


def test_a_message_that_carries_a_traceback_is_told_by_the_inner_one() -> None:
    """As torch's spawn and data loaders pass on what a child raised."""
    log = raised("torch.multiprocessing.spawn.ProcessRaisedException: ")
    log += "\n-- Process 1 terminated with the following error:\n"
    log += raised("RuntimeError: in the child", "child.py")

    assert first(log).cause.endswith("raised RuntimeError: in the child")


def test_errors_of_rays_tasks_are_told_by_what_the_task_raised() -> None:
    """Frames follow the outer exception without a beginning of their own."""
    log = raised("ray.exceptions.RayTaskError(ValueError): ray::f() (pid=7, ip=192.0.2.7)")
    log += '  File "task.py", line 9, in f\n    raise ValueError("bent")\nValueError: bent\n'

    assert first(log).cause.endswith("raised ValueError: bent")


def test_writers_whose_lines_alternate_are_kept_apart() -> None:
    """Two ranks in one file, line by line; each keeps its own exception."""
    one = prefixed("[rank0]: ", raised("ValueError: zero"))
    two = prefixed("[rank1]: ", raised("TypeError: one"))
    found = find_raised(mixed(one, two))

    assert {each.text for each in found} == {"ValueError: zero", "TypeError: one"}


def test_what_the_interpreter_ignored_is_not_it() -> None:
    """Python goes on after an exception in a destructor."""
    log = "Exception ignored in: <function A.__del__ at 0x7f>\n" + raised("TypeError: late")

    assert not match_rules(log, LogSource(name="x")).clues


def test_two_causes_in_one_file_without_times_are_told_in_their_order() -> None:
    """What was written first; the other is said beside it, and the confidence is lower."""
    missing = raised("ModuleNotFoundError: No module named 'peft'")
    memory = raised("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")

    assert (first(missing + memory).id, first(memory + missing).id) == (
        "PY-MOD-001",
        "CUDA-OOM-001",
    )
    assert any(line.startswith("CUDA-OOM-001") for line in first(missing + memory).besides)
    assert first(missing + memory).confidence is Confidence.LIKELY


def test_hardware_comes_before_the_program_that_stumbles_over_it() -> None:
    """In one file without times, though the kernel's line was flushed later."""
    program = raised("RuntimeError: CUDA error: unspecified launch failure")
    kernel = "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus.\n"

    assert first(program + kernel).id == "XID-BUS-001"


@pytest.mark.parametrize("lines", [2, 40])
def test_a_traceback_that_never_ends_is_none(lines: int) -> None:
    """A log that breaks off within the frames names nothing."""
    frames = '  File "a.py", line 3, in f\n    g()\n' * lines

    assert find_raised("Traceback (most recent call last):\n" + frames) == []


@pytest.mark.parametrize("prefix", ["gpu77: ", " 3: ", "(A pid=1) ", "[1,3]<stderr>:", ""])
def test_labels_that_look_like_words_are_labels_where_each_line_has_them(prefix: str) -> None:
    """``NAME:`` before a traceback is a launcher's label, or an introduction that stands once."""
    log = "\n".join(prefixed(prefix, raised("ValueError: batch of 0 rows")))
    introduced = raised("ValueError: batch of 0 rows").replace("Trace", "It met this: Trace", 1)

    for text in (log + "\n", introduced):
        (found,) = find_raised(text)
        assert (found.name, found.message) == ("ValueError", "batch of 0 rows")


def test_boxes_around_program_text_are_part_of_the_traceback() -> None:
    """Rich draws them; the exception stands below."""
    log = (
        "╭──── Traceback (most recent call last) ────╮\n"
        "│ /w/a.py:3 in f                            │\n"
        '│ ❱ 3 │   raise OSError("No space left on   │\n'
        "╰───────────────────────────────────────────╯\n"
        "ValueError: batch of 0 rows\n"
    )

    assert first(log).cause.endswith("raised ValueError: batch of 0 rows")
    assert first(log).evidence[0].line == 5


def test_the_exception_of_another_rank_that_one_carries_is_told() -> None:
    """A checkpoint's error repeats what each rank raised."""
    log = raised("api.CheckpointException: CheckpointException ranks:dict_keys([0, 1])")
    log += raised("core.CheckpointingException: Global shape mismatch for loaded x").replace(
        "last):", "last): (RANK 0)"
    )

    assert first(log).id == "CKPT-SHAPE-001"


def test_an_exit_at_the_end_of_a_chain_says_nothing() -> None:
    """What was tried before, and raised first, does."""
    log = raised("KeyError: 'iteration'") + HANDLED + raised("KeyError: 'total_iters'")
    log += HANDLED + raised("SystemExit")

    assert first(log).cause.endswith("raised KeyError: 'iteration'")


GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "/srv/a.py", line 2, in <module>
  |     raise ExceptionGroup("two", [ValueError("bad row"), KeyError("b")])
  | ExceptionGroup: two (2 sub-exceptions)
  +-+---------------- 1 ----------------
    | ValueError: bad row
    +---------------- 2 ----------------
    | KeyError: 'b'
    +------------------------------------
"""


@pytest.mark.parametrize("prefix", ["", "[rank0]: ", "n1: 2026-12-01 10:00:00 ERROR "])
def test_the_members_of_a_group_are_told(prefix: str) -> None:
    """Those that were never raised have no traceback of their own."""
    log = "\n".join(prefixed(prefix, GROUP)) + "\n"

    names = [one.name for one in find_raised(log)]

    assert names == ["ExceptionGroup", "ValueError", "KeyError"]
    assert first(log).cause.endswith("raised ValueError: bad row")


def test_a_group_whose_members_have_tracebacks_is_not_the_cause() -> None:
    inner = prefixed("    | ", raised("FileNotFoundError: [Errno 2] No such file: '/data/x'"))
    log = "\n".join([*GROUP.splitlines()[:5], *inner, "    +-----------"]) + "\n"

    assert first(log).evidence[0].line == 9


def test_a_group_without_members_is_told_itself() -> None:
    """A log may be cut off there."""
    log = "\n".join(GROUP.splitlines()[:4]) + "\n"

    assert "ExceptionGroup: two" in first(log).cause


def test_words_of_a_thrown_object_that_a_rule_knows_are_the_cause() -> None:
    log = "terminate called after throwing an instance of 'x::Exception'\n"
    log += "  what():  Assertion failed: Failed: MPI error mpiUtils.cpp:211 '6'\n"

    assert first(log).id == "LAUNCH-MPI-007"


@pytest.mark.parametrize("words", ["NIXL_ERR_BACKEND", "it failed, see the root cause above"])
def test_an_exception_that_says_nothing_yields_to_lines_that_do(words: str) -> None:
    """Alone it is told, with the remark that it does not say why."""
    log = raised(f"lib.BackendError: {words}")
    reason = "[17.1] [n1:28:3]  ib.c:1  UCX  ERROR no transport to n2\n"

    assert first(reason + log).id == "UCX-001"
    assert first(log).id == "PY-EXC-002"
    assert first(log).confidence is Confidence.POSSIBLE
