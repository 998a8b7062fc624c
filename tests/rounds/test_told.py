"""What nodes tell of their rounds is validated, and a line that makes no sense is described."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.sharing.exchange_choice import NodeTrial
from orchestrator.core.sharing.rounds import Ended, Joined, Offered, Pace, Part
from orchestrator.parsing.replies.round_records import parse_told

DIGEST = "0123456789abcdef" * 4
JOIN: dict[str, Any] = {
    "type": "join",
    "step": 0,
    "sha256": DIGEST,
    "training": DIGEST,
    "steps": 200,
    "round_steps": 10,
    "rows": 12,
    "values": 1000,
    "compression": "int8",
    "learning_rate": 1.0,
    "momentum": 0.5,
}
TRIAL: dict[str, Any] = {
    "type": "trial",
    "step_s": 0.5,
    "steps": 200,
    "values": 1000,
    "name": "trial.bin",
    "bytes": 4064,
    "sha256": DIGEST,
}
PART: dict[str, Any] = {
    "type": "part",
    "round": 3,
    "rows": 60,
    "pace": {"rows": 60, "seconds": 1.5},
    "curve": [{"step": 21, "loss": 0.5, "targets": 9, "tokens": 99, "seconds": 0.1}],
    "name": "part-3.bin",
    "bytes": 1016,
    "sha256": DIGEST,
}


def told(record: object) -> object:
    return parse_told(json.dumps(record).encode())


def test_what_makes_sense_is_understood() -> None:
    """One of each kind."""
    join, part = told(JOIN), told(PART)
    assert isinstance(join, Joined)
    assert (join.terms.rows, join.step) == (12, 0)
    assert isinstance(part, Part)
    assert (part.file.name, part.pace.seconds, part.curve[0].targets) == ("part-3.bin", 1.5, 9)
    assert isinstance(told({**PART, "type": "parameters"}), Offered)
    trial = told(TRIAL)
    assert isinstance(trial, NodeTrial)
    assert (trial.step_s, trial.steps, trial.values, trial.file.bytes) == (0.5, 200, 1000, 4064)
    assert isinstance(told({**PART, "type": "pace"}), Pace)
    assert told({"type": "end", "sha256": DIGEST}) == Ended(sha256=DIGEST)


@pytest.mark.parametrize(
    "record,word",
    [
        ({**JOIN, "steps": 0}, "steps"),
        ({**JOIN, "steps": True}, "steps"),
        ({**JOIN, "values": 10**12}, "values"),
        ({**JOIN, "compression": "zip"}, "zip"),
        ({**JOIN, "momentum": 1.0}, "momentum"),
        ({**JOIN, "learning_rate": float("nan")}, "learning_rate"),
        ({**JOIN, "training": "x"}, "training"),
        ({**TRIAL, "step_s": -1.0}, "step_s"),
        ({**TRIAL, "bytes": 10**9}, "bytes"),
        ({**TRIAL, "name": ".."}, "name"),
        ({**PART, "name": "../../part"}, "name"),
        ({**PART, "name": "a/b"}, "name"),
        ({**PART, "bytes": -1}, "bytes"),
        ({**PART, "rows": 0}, "rows"),
        ({**PART, "pace": {"rows": 6, "seconds": 0}}, "seconds"),
        ({**PART, "pace": 3}, "pace"),
        ({**PART, "curve": []}, "steps"),
        ({**PART, "curve": [{**PART["curve"][0], "loss": float("inf")}]}, "loss"),
        ({**PART, "curve": [7]}, "object"),
        ({"type": "else"}, "else"),
        ([], "object"),
    ],
)
def test_what_makes_no_sense_is_described(record: object, word: str) -> None:
    """With the field that is wrong."""
    answer = told(record)
    assert isinstance(answer, str)
    assert word in answer


@given(st.binary(max_size=200))
def test_no_line_is_ever_raised(line: bytes) -> None:
    """Bytes of any kind."""
    assert parse_told(line) is not None


def test_a_line_without_end_is_not_parsed() -> None:
    """Nesting and size are bounded."""
    assert "bytes" in str(parse_told(b"[" * 2_000_000))
    assert "JSON" in str(parse_told(b"[" * 100_000))
