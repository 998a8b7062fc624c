"""Evidence from nodes: what is well formed is taken over, everything else is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.run.evidence import Collective, RankEvidence
from orchestrator.parsing.replies.inspection import parse_inspection
from orchestrator.parsing.replies.supervisor_records import BadRecord

RANK: dict[str, Any] = {
    "rank": 1,
    "pid": 4711,
    "comm": "python",
    "state": "S",
    "waits_in": "futex",
    "cpu": 0.02,
    "quiet_s": 61.2,
    "lines": ["step 7", "step 8"],
    "stack": [f"frame{n} (train.py:{n})" for n in range(12)],
    "collectives": [
        {"group": "default_pg", "entered": 6, "completed": 5, "operation": "all_reduce",
         "members": [0, 1]}
    ],
    "gpu": 3,
}  # fmt: skip
GPUS = [{"index": 3, "busy": 100, "uuid": "GPU-1", "users": [4711]}]


def answer(*ranks: Any, **files: bytes) -> tuple[list[dict[str, Any]], bytes]:
    """What a node would send."""
    document = json.dumps({"ranks": ranks, "gpus": GPUS, "notes": [], "elapsed_s": 1.1}).encode()
    every = {"inspection.json": document, **files}
    return [{"name": n, "bytes": len(d)} for n, d in every.items()], b"".join(every.values())


def test_evidence_and_files_are_taken_over() -> None:
    found = parse_inspection(*answer(RANK, raw=b"stacks"))
    assert found.inspection.ranks == (
        RankEvidence(
            rank=1,
            pid=4711,
            state="S",
            waits_in="futex",
            cpu=0.02,
            quiet_s=61.2,
            stack=tuple(f"frame{n} (train.py:{n})" for n in range(8)),
            collectives=(
                Collective(
                    group="default_pg",
                    entered=6,
                    completed=5,
                    operation="all_reduce",
                    members=(0, 1),
                ),
            ),
            gpu_busy=100,
            last_line="step 8",
        ),
    )
    assert found.files["raw"] == b"stacks"


@pytest.mark.parametrize(
    "change",
    [
        {"rank": -1},
        {"rank": "1"},
        {"rank": True},
        {"state": None},
        {"cpu": float("nan")},
        {"quiet_s": -1.0},
        {"stack": [1]},
        {"stack": ["x"] * 65},
        {"lines": ["x" * 2001]},
        {"collectives": [{"group": "g", "entered": -1, "completed": 0}]},
    ],
)
def test_what_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(BadRecord, match=r"inspection\.json"):
        parse_inspection(*answer({**RANK, **change}))


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "", ".hidden", "a/b", "x" * 101, 3])
def test_a_file_stays_in_its_folder(name: object) -> None:
    listed, payload = answer(RANK)
    with pytest.raises(BadRecord, match="file name"):
        parse_inspection([*listed, {"name": name, "bytes": 0}], payload)


@pytest.mark.parametrize("size", [-1, 1, True, 2**63, None])
def test_sizes_that_do_not_fit_are_refused(size: object) -> None:
    listed, payload = answer(RANK)
    with pytest.raises(BadRecord):
        parse_inspection([*listed, {"name": "raw", "bytes": size}], payload)


def test_text_of_a_rank_cannot_steer_a_terminal() -> None:
    found = parse_inspection(*answer({**RANK, "lines": ["\x1b[2Jgone"], "state": "\x07"}))
    assert found.inspection.ranks[0].last_line == "?[2Jgone"
    assert found.inspection.ranks[0].state == "?"


@given(st.binary(max_size=200), st.lists(st.dictionaries(st.text(max_size=5), st.integers())))
def test_garbage_is_refused_as_what_it_is(payload: bytes, listed: list[Any]) -> None:
    with pytest.raises(BadRecord):
        parse_inspection(listed, payload)
