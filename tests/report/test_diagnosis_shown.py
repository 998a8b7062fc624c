"""A failure's diagnosis wherever results are shown: JSON, screen, Markdown, HTML."""

from __future__ import annotations

import json
from pathlib import Path

from orchestrator.adapters.report.document import load_report
from orchestrator.adapters.report.html_report import render_html
from orchestrator.adapters.report.markdown import render_markdown
from orchestrator.adapters.report.result_json import parse_object, to_object
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.errors import ExitCode
from orchestrator.core.diagnosis.diagnosis_model import Advice, Confidence, Diagnosis, Evidence
from orchestrator.core.verdict.result import FailureResult, Result, Status
from orchestrator.view.result.failure_screen import MAX_LINES, failure_screen

EVIL = "<script>x</script>\x1b[2J|`**"


def failed(text: str = "") -> Result:
    """A run whose logs say why it failed; ``text`` stands in every foreign part of it."""
    diagnosis = Diagnosis(
        id="CUDA-OOM-001",
        title="Out of GPU memory",
        confidence=Confidence.CERTAIN,
        cause=f"rank 3 on b ran out of GPU memory{text}",
        remedy=f"a smaller micro-batch{text}",
        advice=Advice.GIVE_UP,
        node="b",
        rank=3,
        who="rank 3 on b",
        evidence=(
            Evidence(file=f"logs/b/rank-3.err{text}", line=7, text=f"CUDA out of memory{text}"),
        ),
        consequences=("7 ranks timed out waiting",),
        besides=("PY-EXC-001: rank 5 raised KeyError",),
        references=("pytorch#118369",),
    )
    cause = "rank 0 on a was killed by SIGABRT"
    return Result(
        run_id="r1",
        status=Status.FAILED,
        exit_code=ExitCode.RUN_FAILED,
        cluster="c",
        workload="w",
        launcher="torchrun",
        world_size=8,
        failure=FailureResult(id="OR-RUN-001", cause=cause, node="a", rank=0, diagnosis=diagnosis),
        warnings=("w",) * 20,
    )


def test_results_keep_it() -> None:
    """Written and read again, it is the same; in JSON it has plain values."""
    data = json.loads(json.dumps(to_object(failed())))

    assert parse_object(data, where="x") == failed()
    found = data["failure"]["diagnosis"]
    assert (found["id"], found["confidence"], found["advice"]) == (
        "CUDA-OOM-001",
        "certain",
        "give-up",
    )
    assert found["evidence"] == [
        {"file": "logs/b/rank-3.err", "line": 7, "text": "CUDA out of memory"}
    ]


def test_the_screen_names_rank_and_signal_first_then_the_diagnosis() -> None:
    """Two lines, with id, confidence and place, within the fifteen."""
    lines = failure_screen(failed(), None)

    assert len(lines) <= MAX_LINES
    assert lines[0] == "FAILED: rank 0 on a was killed by SIGABRT (OR-RUN-001)"
    assert lines[1] == (
        "  diagnosis: rank 3 on b ran out of GPU memory; 7 ranks timed out waiting "
        "(CUDA-OOM-001, certain; logs/b/rank-3.err:7)"
    )
    assert lines[2] == "  remedy: a smaller micro-batch"


def test_reports_show_it_and_escape_what_logs_say(tmp_path: Path) -> None:
    """Cause, confidence, evidence and remedy; no tag and no control character gets through."""
    folder = Layout(tmp_path).run("r1")
    folder.create()
    report = load_report(folder, failed(EVIL))

    page, text = render_html(report), render_markdown(report)

    for words in ("CUDA-OOM-001", "certain", "rank-3.err", "7 ranks timed out", "micro-batch"):
        assert words in page
        assert words in text
    assert "<script" not in page
    assert "<script" not in text
    assert "\x1b" not in "".join([page, text, *failure_screen(failed(EVIL), None)])
