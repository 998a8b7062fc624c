"""The corpora of ``bench diagnose``: what counts as right, and the promise on logs held out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_lib.base.errors import BenchError
from bench_lib.cli import main
from bench_lib.diagnose import HOLDOUT, QUOTED, RIGHT, UNKNOWN, WRONG, judged, met, verdicts

from orchestrator.core.diagnosis.diagnosis_model import Advice, Confidence, Diagnosis

LEAST_HELD_OUT = 60


def found(rule: str, **known: object) -> Diagnosis:
    return Diagnosis(
        id=rule,
        title="t",
        confidence=Confidence.LIKELY,
        cause="rank 3 on n1 raised ValueError: bent",
        remedy="r",
        advice=Advice.GIVE_UP,
        **known,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    "expected, diagnosis, word",
    [
        ({"first": "A-001"}, found("A-001"), RIGHT),
        ({"right": ["B-001", "A-001"]}, found("A-001"), RIGHT),
        ({"right": ["A-001"], "says": "bent"}, found("A-001"), RIGHT),
        ({"right": ["A-001"], "says": "straight"}, found("A-001"), WRONG),
        ({"right": ["A-001"], "node": "n1"}, found("A-001", node="n1"), RIGHT),
        ({"right": ["A-001"], "node": "n1"}, found("A-001", node="n2"), WRONG),
        ({"right": ["A-001"], "rank": 3}, found("A-001"), WRONG),
        ({"right": ["A-001"], "says": "bent"}, found("PY-EXC-001"), QUOTED),
        ({"right": ["A-001"]}, found("PY-EXC-001"), WRONG),
        ({"right": ["A-001"]}, None, UNKNOWN),
        ({"right": [None]}, None, RIGHT),
        ({"right": [None]}, found("A-001"), WRONG),
    ],
)
def test_what_counts_as_right(
    expected: dict[str, object], diagnosis: Diagnosis | None, word: str
) -> None:
    """The rule, the words, the node and the rank; nothing, where nothing may be said."""
    assert judged(expected, diagnosis) == word


def test_of_logs_held_out_none_is_wrong_and_few_are_unknown() -> None:
    """Each set of logs whose causes were written down before any rule was tried on them."""
    several = [each for each in verdicts() if each.corpus.startswith("held out")]

    assert len(several) >= LEAST_HELD_OUT
    assert [each.case for each in several if each.word == WRONG] == []
    assert met(several)


def test_a_wrong_cause_misses_the_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 5, the case by name, and a file for machines."""
    case = tmp_path / HOLDOUT / "own" / "odd"
    case.mkdir(parents=True)
    (case / "job.log").write_text("ModuleNotFoundError: No module named 'peft'\n")
    (case / "expected.json").write_text(json.dumps({"right": ["CUDA-OOM-001"], "cause": "memory"}))
    monkeypatch.setattr("bench_lib.diagnose.GOLDEN", tmp_path)
    monkeypatch.setattr("bench_lib.commands.diagnose.verdicts", lambda: verdicts(tmp_path))

    code = main(["diagnose", "--json", str(tmp_path / "out.json")])

    out = capsys.readouterr().out
    assert code == 5
    assert "| held out: own | 1 | 0 (0%) | 0 (0%) | 0 (0%) | 1 (100%) |" in out
    assert "- wrong: held out: own/odd: PY-MOD-001" in out
    assert json.loads((tmp_path / "out.json").read_text())["cases"][0]["word"] == WRONG


def test_no_corpus_is_no_result(tmp_path: Path) -> None:
    """An empty folder is an error, not a share of nothing."""
    with pytest.raises(BenchError, match="no logs"):
        list(verdicts(tmp_path))
