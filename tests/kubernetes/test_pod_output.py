"""What a pod shows: lines, whatever portions they come in, figures, and one exit code."""

from __future__ import annotations

import json
import tempfile
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.node_agent.kubernetes.pod_output import (
    MAX_LINE_BYTES,
    PodOutput,
    final_figures,
    judge,
)

CONCLUDED = {"event": "concluded", "clean": True, "survivors": []}


def shown(*portions: tuple[str, bytes]) -> bytes:
    """What portions of log files become on standard output."""
    with tempfile.TemporaryFile() as out:
        output = PodOutput(out.fileno())
        for file, data in portions:
            output.send({"event": "log", "file": file}, data)
        output.finish()
        out.seek(0)
        return out.read()


def exited(rank: int, outcome: dict[str, Any], *, by_us: bool = False) -> dict[str, Any]:
    """The supervisor's record of a rank's end."""
    about = {"outcome": outcome, "by_us": by_us, "last_line": "the last line"}
    return {"event": "rank-exited", "rank": rank, **about}


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"x", b"\n")), max_size=8))
def test_lines_do_not_depend_on_portions(portions: list[bytes]) -> None:
    """Nothing is lost, doubled or joined."""
    whole = b"".join(portions)

    cut = shown(*(("rank-3.out", portion) for portion in portions))

    assert cut == shown(("rank-3.out", whole))
    *lines, rest = whole.split(b"\n")
    lines += [rest] if rest else []
    assert cut == b"".join(b"[rank3]: " + line + b"\n" for line in lines)


def test_files_do_not_mix_and_long_lines_are_cut() -> None:
    """A half line of one rank waits, while another one's is shown; launchers go by their label."""
    mixed = shown(("rank-0.out", b"half "), ("rank-1.err", b"one\n"), ("rank-0.out", b"line\n"))
    assert mixed == b"[rank1]: one\n[rank0]: half line\n"
    assert shown(("launcher.err", b"said\n")) == b"[launcher]: said\n"

    long = shown(("rank-0.out", b"a" * (MAX_LINE_BYTES + 1)))
    assert [len(line) for line in long.splitlines()] == [MAX_LINE_BYTES + 9, 1 + 9]


@settings(max_examples=60)
@given(
    st.binary(max_size=60)
    | st.recursive(
        st.none() | st.integers() | st.text(max_size=5),
        lambda inner: st.dictionaries(
            st.sampled_from(["type", "name", "value", "unit", "step"]), inner
        ),
        max_leaves=6,
    ).map(lambda value: json.dumps(value).encode())
)
def test_no_report_of_a_rank_ends_the_pod(report: bytes) -> None:
    """Each figure is one line, whatever ranks write."""
    for figure in final_figures(report):
        assert len(figure.splitlines()) == 1


@pytest.mark.parametrize(
    "records, stopped, code, why",
    [
        ([exited(0, {"exited": 0}), CONCLUDED], 0, 0, ""),
        ([exited(0, {"exited": 7})], 0, 7, "rank 0 ended with exit code 7: the last line"),
        ([exited(2, {"signalled": 11})], 0, 139, "rank 2 was killed by SIGSEGV: the last line"),
        # The first that failed by itself counts, not those that were stopped because of it.
        (
            [exited(0, {"signalled": 15}, by_us=True), exited(1, {"exited": 3}), CONCLUDED],
            0,
            3,
            "rank 1 ended with exit code 3: the last line",
        ),
        ([exited(0, {"signalled": 15}, by_us=True), CONCLUDED], 143, 143, "the ranks were stopped"),
        ([exited(0, {"lost": "it was there after KILL"})], 0, 1, "rank 0 ended with exit code ?"),
        ([], 0, 1, "the supervisor ended without a conclusion"),
        ([{**CONCLUDED, "clean": False, "survivors": [{"pid": 7}]}], 0, 1, "processes were left"),
    ],
)
def test_the_ending_is_that_of_the_ranks(
    records: list[dict[str, Any]], stopped: int, code: int, why: str
) -> None:
    ended, reason = judge(records, stopped)

    assert ended == code
    assert reason.startswith(why)
    assert bool(reason) is bool(why)


def test_credit_is_given_back() -> None:
    """Or a watch would stop after its first window."""
    granted: list[int] = []

    class Counting:
        def grant(self, size: int) -> None:
            granted.append(size)

    with tempfile.TemporaryFile() as out:
        output = PodOutput(out.fileno())
        output.credit = Counting()  # type: ignore[assignment]
        output.send({"event": "log", "file": "rank-0.out", "cost": 300}, b"line\n")
        output.send({"event": "drained", "cost": 256})

    assert granted == [300, 256]
