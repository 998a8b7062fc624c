"""Who wrote a line, by the prefixes of launchers, servers and collectors, coloured or not."""

from __future__ import annotations

import json

import pytest

from orchestrator.core.diagnosis.cleaning import clean_log_text
from orchestrator.core.diagnosis.diagnosis_model import LogSource
from orchestrator.core.diagnosis.line_prefixes import read_head
from orchestrator.core.diagnosis.matching import match_rules

# Prefix, the node and the rank that it tells; behind each stands an exception.
PREFIXES = [
    ("[rank3]: ", "", 3),
    ("[rank12]:", "", 12),
    ("[default5]:[rank13]: ", "", 13),
    ("[gpu02/3] ", "gpu02", 3),
    (" 3: ", "", 3),
    ("[1,3]<stderr>:", "", 3),
    ("[prterun-n1-99@1,3]<stderr>: ", "", 3),
    ("[1,mpirank:9,algo-2]<stderr>:", "algo-2", 9),
    ("gpu02: ", "gpu02", None),
    ("gpu02.example.org: ", "gpu02.example.org", None),
    ("192.0.2.18: ", "192.0.2.18", None),
    ("fd00::12: ", "fd00::12", None),
    ("r7i4n2: ", "r7i4n2", None),
    ("0a1b2c: ", "0a1b2c", None),
    ("ip-192-0-2-7: ", "ip-192-0-2-7", None),
    ("gpu-b: ", "gpu-b", None),
    ("gpu-b: [rank12]: ", "gpu-b", 12),
    ("alpha: [rank12]: ", "alpha", 12),
    ("192.0.2.18: [rank3]: ", "192.0.2.18", 3),
    ("(RayTrainWorker pid=77, ip=192.0.2.3) ", "192.0.2.3", None),
    ("(worker1, rank=1, pid=18, ip=192.0.2.4) ", "192.0.2.4", 1),
    ("(EngineCore_DP0 pid=41) ERROR 10-01 18:08:14 [core.py:708] ", "", None),
    ("(Worker_TP1 pid=41) ERROR 10-01 18:08:14 [core.py:708] ", "", 1),
    ("(raylet, ip=192.0.2.9) ", "192.0.2.9", None),
    ("[2026-10-01 18:08:14 TP3] ", "", 3),
    ("[2026-10-01 18:08:14,123] [ERROR] [launch.py:325:handler] ", "", None),
    ("Oct 01 18:08:14 n3 serve[412]: ", "n3", None),
    ("2026-10-01T18:08:14+0200 n3 serve[412]: ", "n3", None),
    ("trainer-1  | ", "trainer-1", None),
    ("svc.1.abcdef@node1    | ", "node1", None),
    ("2026-10-01 18:08:14.120 | ERROR    | train:main:88 - ", "", None),
    ("2026-10-01 18:08:14,120 - mylib.train - ERROR - ", "", None),
    ("10/01/2026 18:08:14 - ERROR - __main__ - ", "", None),
    ("ERROR:mylib.train:", "", None),
    ("2026-10-01T18:08:14.123456789Z stderr F ", "", None),
    ("[pod/job-0-abc/main] ", "job-0-abc", None),
    ("[10/01/2026-18:08:14] [TRT-LLM] [E] ", "", None),
    ("[host2] ", "host2", None),
    ("w4 r6: ", "w4", 6),
    ("[1757786922.147458] [n04:20780:0] ", "n04", None),
]
COLOURS = {
    "plain": "{0}",
    "escapes": "\x1b[1;36m{0}\x1b[0m",
    "syslog": "#033[36m{0}#033[0m",
    "pager": "ESC[1;36m{0}ESC[0;0m",
    "title": "\x1b]0;job\x07{0}",
}
BOOM = "ModuleNotFoundError: No module named 'peft'"


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("prefix, node, rank", PREFIXES)
def test_prefixes_are_read_with_and_without_colours(
    prefix: str, node: str, rank: int | None, colour: str
) -> None:
    """Node, rank and the exception itself, whatever steers the terminal."""
    head, gap = prefix.rstrip(), prefix[len(prefix.rstrip()) :]
    coloured = COLOURS[colour].format(head) + gap + BOOM
    (found,) = match_rules(clean_log_text(coloured), LogSource(name="x.log")).clues

    assert found.rule.id == "PY-MOD-001"
    assert (found.source.node, found.source.rank) == (node, rank)


@pytest.mark.parametrize("prefix, node, rank", PREFIXES)
def test_tracebacks_behind_prefixes_end_in_their_exception(
    prefix: str, node: str, rank: int | None
) -> None:
    """Frames and program text behind them are no evidence, the exception is."""
    lines = ["Traceback (most recent call last):", '  File "a.py", line 3, in <module>']
    lines += ["    import peft  # or: raise ValueError('no')", "ValueError: batch of 0 rows"]
    (found,) = match_rules(
        "\n".join(prefix + line for line in lines), LogSource(name="x.log")
    ).clues

    assert found.captures["detail"] == "ValueError: batch of 0 rows"
    assert (found.source.node, found.source.rank, found.line) == (node, rank, 4)


@pytest.mark.parametrize(
    "line",
    [
        "KeyError: 3",
        "python3.11: can't open file 'x'",
        "torch.OutOfMemoryError: CUDA out of memory",
        "socket.gaierror: [Errno -2] Name or service not known",
        "libcudart.so.11.0: cannot open shared object file",
        "train-v2.py: error: unrecognized arguments",
        "srun: error: n3: task 3: Exited with exit code 1",
        "bash: line 1: torchrun: command not found",
        "torchrun: error: argument --nnodes",
        "nvidia-smi: command not found",
        "H100-3: fan speed",
        "step3: loss 2.1",
        "error: [rank3] is not there",
        "root: [2026-01-01] x",
    ],
)
def test_what_looks_like_a_host_and_is_none(line: str) -> None:
    """Programs, libraries, exceptions, cards and steps stand before colons, too."""
    assert read_head(line).node == ""


@pytest.mark.parametrize(
    "line, mild",
    [
        ("WARNING 10-01 18:08:14 [x.py:3] No module named 'y'", True),
        ("2026-10-01 18:08:14 | INFO | a:b:1 - x", True),
        ("ERROR:root:x", False),
        ("[2026-10-01 18:08:14,123] [CRITICAL] x", False),
        ("I1001 18:08:14.000000 41 a.cc:3] x", False),
        ("plain", False),
    ],
)
def test_levels_tell_what_a_program_survived(line: str, mild: bool) -> None:
    """A warning or less; the letters of glog are no promise."""
    assert read_head(line).mild is mild


def test_lines_of_json_are_their_messages() -> None:
    """With host, level and traceback; the file's lines keep their numbers."""
    record = {
        "timestamp": "2026-01-02T03:04:05Z",
        "level": "error",
        "hostname": "n7",
        "message": "step failed",
        "exc_info": "Traceback (most recent call last):\n"
        '  File "a.py", line 1, in <module>\n    f()\nZeroDivisionError: division by zero',
    }
    text = f'{{"level": "info", "message": "fine"}}\n{json.dumps(record)}\nlast\n'
    (found,) = match_rules(clean_log_text(text), LogSource(name="x.log")).clues

    assert clean_log_text(text).count("\n") == text.count("\n")
    assert (found.source.node, found.line) == ("n7", 2)
    assert found.captures["detail"] == "ZeroDivisionError: division by zero"


@pytest.mark.parametrize(
    "text", ['{"a": ', '{"message": 3}', '{"message": ""}', "{}", '{"x": "' + "[" * 5000 + '"}']
)
def test_what_is_no_record_stays_as_it_is(text: str) -> None:
    """Half a record, another's record, a deep one."""
    assert clean_log_text(text) == text
