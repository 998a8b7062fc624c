"""`scripts/bench finetune`: both sides do the same work, and the report says what was measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import bench_lib.finetuning.finetune
import pytest
from bench_lib.base.errors import BenchError
from bench_lib.finetuning.finetune import finetune, finetune_markdown, met

pytestmark = pytest.mark.slow


def side(name: str, rate: float) -> dict[str, Any]:
    figures = {"tokens_per_s_per_gpu": rate, "lowest": rate - 1, "highest": rate + 1, "steps": 5}
    return {"kind": "side", "name": name, "engine": "", "peak_bytes": 2**34, "losses": [2.0]} | (
        figures
    )


def records(ours: float, device: str = "NVIDIA H200") -> list[dict[str, Any]]:
    return [
        {"kind": "machine", "device": device},
        {"kind": "arithmetic", "flop_per_token": 30e9, "product_tflops": 790.0},
        side("usual", 6000.0),
        side("ours", ours) | {"losses": [2.02]},
        {"kind": "end"},
    ]


def test_the_target_is_a_ratio_within_one_run() -> None:
    assert met(records(17_100.0))
    assert not met(records(17_000.0))
    assert not met(records(17_100.0)[:3])
    assert met(records(10.0, device="CPU"))
    less = records(16_300.0)
    assert not met(less)
    less[0]["memory_limit_gib"] = 78.0
    assert met(less)


def test_the_report_has_rates_ratios_and_their_part_of_the_bound() -> None:
    text = finetune_markdown(records(18_000.0))
    (line,) = [line for line in text.splitlines() if line.startswith("| ours")]
    assert "18,000 (17,999..18,001)" in line
    assert "3.00" in line
    assert "ours against usual: largest difference 1.000%" in text
    assert "68.4% of 790" in line  # 18,000 x 30e9 = 540 TFLOP/s
    assert "cut off" not in text
    assert "cut off" in finetune_markdown(records(18_000.0)[:-1])


@pytest.mark.timeout(240)
def test_both_sides_learn_the_same_from_the_same_rows() -> None:
    options = ["--length", "32", "--steps", "4", "--warmup", "1", "--rows", "2", "--profile"]
    measured: list[dict[str, Any]] = []
    finetune(sys.executable, 1, options, measured)
    kinds = [record["kind"] for record in measured]
    assert kinds == ["machine", "arithmetic", "profile", "side", "profile", "side", "end"]
    usual, ours = (record for record in measured if record["kind"] == "side")
    assert ours["losses"] == pytest.approx(usual["losses"], rel=1e-5)
    assert len(set(usual["losses"])) == 4
    for profile in (record for record in measured if record["kind"] == "profile"):
        assert profile["seconds"]["matrix products"] > 0
        assert 0 < profile["busy_s"] <= profile["span_s"]
        assert 0 <= profile["exposed_s"] <= profile["busy_s"]
    assert finetune_markdown(measured)


def test_ranks_that_measure_nothing_are_an_error() -> None:
    with pytest.raises(BenchError, match="no side was measured"):
        finetune(sys.executable, 1, ["--model", "unknown"], [])


LATE = """#!{python}
import pathlib, signal, sys
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
out.write_text({record!r})
signal.sigwait([signal.SIGTERM])
pathlib.Path({ended!r}).touch()
"""


def test_a_late_launcher_is_asked_to_end_and_what_it_told_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed at once, it would leave its ranks on their GPUs."""
    record = side("usual", 6000.0)
    ended = tmp_path / "ended"
    program = tmp_path / "launcher"
    text = LATE.format(python=sys.executable, record=json.dumps(record) + "\n", ended=str(ended))
    program.write_text(text)
    program.chmod(0o700)
    monkeypatch.setattr(bench_lib.finetuning.finetune, "LIMIT_S", 3)
    measured: list[dict[str, Any]] = []
    finetune(str(program), 1, [], measured)
    assert measured == [record]
    assert ended.exists()
