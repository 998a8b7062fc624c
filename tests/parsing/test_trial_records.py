"""What nodes and ranks tell of trials is bounded, whatever it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.outcome import Exited, TimedOut
from orchestrator.core.fabric.collective_result import STAGES
from orchestrator.parsing.replies.reach_records import parse_dialled
from orchestrator.parsing.replies.supervisor_records import BadRecord
from orchestrator.parsing.replies.trial_records import TriedProcess, parse_trial, rank_trial

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def told(*lines: object, err: tuple[str, ...] = (), code: int = 0) -> TriedProcess:
    texts = tuple(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return TriedProcess(label="trial-3", outcome=Exited(code), out=texts, err=err)


def test_stages_make_a_trial() -> None:
    trial = rank_trial(
        "a",
        3,
        told(
            "a library says hello",
            {"stage": "imported", "torch": "2.13.0", "nccl": "2.28.9"},
            {"stage": "reduced", "network": "IB", "detail": "via NET/IB/0/GDRDMA"},
            {"stage": "measured", "bytes": 1 << 30, "took": 0.25},
        ),
    )
    assert trial.ok
    assert (trial.size, trial.seconds, trial.network) == (1 << 30, 0.25, "IB")
    assert trial.versions == "torch 2.13.0 nccl 2.28.9"


def test_an_error_is_quoted_with_the_librarys_last_word() -> None:
    error = {"stage": "error", "message": "no answer within 10 s", "log": ["x", "NCCL WARN y"]}
    trial = rank_trial("a", 3, told({"stage": "met"}, error, code=3))
    assert (trial.stage, trial.ok) == ("met", False)
    assert trial.error == "no answer within 10 s: NCCL WARN y"


def test_without_a_word_of_its_own_standard_error_counts() -> None:
    trial = rank_trial("a", 3, told(err=("Traceback", "ImportError: torch"), code=1))
    assert (trial.stage, trial.error) == ("started", "ImportError: torch")
    assert rank_trial("a", 3, told({"stage": "measured"}, err=("a warning",))).error == ""


@given(st.lists(JSON | st.text(), max_size=6))
def test_whatever_a_rank_writes_makes_a_trial(lines: list[Any]) -> None:
    trial = rank_trial("a", 3, told(*lines))
    assert trial.stage in STAGES
    assert trial.size >= 0
    assert trial.seconds >= 0
    assert len(trial.error) < 1000


@given(JSON)
def test_whatever_a_node_sends_is_parsed_or_refused(value: Any) -> None:
    for content in (value, {"processes": value}, {"processes": [value]}):
        try:
            parse_trial(json.dumps(content).encode(), 5.0)
        except BadRecord:
            continue


@given(JSON)
def test_each_target_has_a_result(value: Any) -> None:
    assert len(parse_dialled({"results": value}, 3)) == 3
    assert len(parse_dialled({"results": [value, {"ok": True}]}, 3)) == 3
    assert not parse_dialled({}, 1)[0].ok


def test_what_we_ended_did_not_end_by_itself() -> None:
    process = {"label": "trial-0", "outcome": {"signalled": 9}, "by_us": True, "out": ["x"]}
    (parsed,) = parse_trial(json.dumps({"processes": [process]}).encode(), 5.0)
    assert (parsed.outcome, parsed.out, parsed.err) == (TimedOut(5.0), ("x",), ())
    for wrong in (b"{", b"[]", b'{"processes": 1}', b'{"processes": [{"outcome": 1}]}'):
        with pytest.raises(BadRecord):
            parse_trial(wrong, 5.0)
