"""LoadGen's verdict, read from texts that LoadGen 6.0.17 wrote; more of it in tests/cli."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.parsing.replies.load.loadgen_logs import read_accuracy, read_performance

SERVER = """================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : 46.15
Completed tokens per second: 233.69
Result is : VALID
  Performance constraints satisfied : Yes
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: Yes
TTFT Early Stopping Result:
 * Run successful.

Scheduled samples per second : 46.29
50.00 percentile latency (ns)   : 5288485
90.00 percentile latency (ns)   : 8430268
50.00 percentile first token latency (ns)   : 5270159
99.00 percentile first token latency (ns)   : 11656447
50.00 percentile time to output token (ns)   : 4351

No warnings encountered during test.

No errors encountered during test.
"""
ERROR = (
    ':::MLLOG {"key": "error_runtime", "value": "Attempted to complete a sample twice.", '
    '"time_ms": 0.2, "metadata": {"is_error": true, "is_warning": false}}\n'
)
TOO_SHORT = (
    ':::MLLOG {"key": "result_invalid_reason", "value": "Increase expected QPS so the loadgen '
    'pre-generates a larger (coalesced) query. ", "metadata": {"is_error": false}}\n'
)
TOO_SLOW = (
    ':::MLLOG {"key": "early_stopping_ttft_result", "value": " * Run unsuccessful.  * Processed 80 '
    'queries.  * Would need to run at least 497 more queries,  with", "metadata": {}}\n'
    ':::MLLOG {"key": "early_stopping_tpot_result", "value": " * Run successful.", '
    '"metadata": {}}\n'
)
ANSWERS = {0: b"\1\0\0\0", 3: b"\2\0\0\0"}
QUIET = "\nNo warnings encountered during test.\n\nNo errors encountered during test.\n"


def log_of(*rows: tuple[int, bytes]) -> str:
    return json.dumps([{"seq_id": 0, "qsl_idx": i, "data": data.hex()} for i, data in rows])


def test_a_valid_test_has_loadgens_figures_in_seconds() -> None:
    verdict = read_performance(SERVER, "")
    assert verdict.invalid == ""
    assert verdict.figures == {
        "loadgen_samples_per_s": (46.15, "samples/s"),
        "loadgen_tokens_per_s": (233.69, "tok/s"),
        "loadgen_latency_p50": (pytest.approx(0.005288485), "s"),
        "loadgen_latency_p90": (pytest.approx(0.008430268), "s"),
        "loadgen_ttft_p50": (pytest.approx(0.005270159), "s"),
        "loadgen_ttft_p99": (pytest.approx(0.011656447), "s"),
        "loadgen_tpot_p50": (pytest.approx(4.351e-6), "s"),
    }


def test_valid_with_errors_is_not_valid() -> None:
    """LoadGen's result stays VALID when a sample was completed twice."""
    counted = SERVER.replace("No errors encountered during test.", "1 ERRORS encountered. See log.")
    verdict = read_performance(counted, ERROR)
    assert verdict.invalid == (
        "1 errors in LoadGen's detail log: Attempted to complete a sample twice."
    )


def test_an_invalid_test_has_the_condition_and_loadgens_advice() -> None:
    invalid = SERVER.replace("VALID", "INVALID").replace(
        "Min duration satisfied : Yes", "Min duration satisfied : NO"
    )
    assert read_performance(invalid, TOO_SHORT + TOO_SLOW).invalid == (
        "LoadGen says INVALID: min duration not satisfied; Increase expected QPS so the loadgen "
        "pre-generates a larger (coalesced) query.; Run unsuccessful. Processed 80 queries. Would "
        "need to run at least 497 more queries, with"
    )


@given(st.integers(0, len(SERVER) - 1))
def test_a_summary_that_was_cut_off_is_never_valid(size: int) -> None:
    """LoadGen's process has left empty ones behind a normal exit."""
    whole = size >= SERVER.index("No errors encountered") + len("No errors encountered")
    assert whole or read_performance(SERVER[:size], "").invalid


@given(st.text(), st.text(), st.text())
def test_no_text_is_too_odd(summary: str, detail: str, log: str) -> None:
    assert read_performance(summary, f":::MLLOG {detail}").invalid
    assert read_accuracy(summary, detail, log, ANSWERS, {}).invalid


def test_an_accuracy_log_has_each_sample_once_with_its_answer() -> None:
    right = list(ANSWERS.items())
    assert read_accuracy(QUIET, "", log_of(*right), ANSWERS, {}).invalid == ""
    for wrong, said in (
        ([*right, right[0]], "3 answers of 2 samples for 2 samples"),
        (right[:1], "1 answers of 1 samples for 2 samples"),
        ([right[0], (4, right[1][1])], "2 answers of 2 samples for 2 samples"),
        ([right[0], (3, b"\7")], "another answer of sample 3"),
    ):
        assert said in read_accuracy(QUIET, "", log_of(*wrong), ANSWERS, {}).invalid
    assert "not whole" in read_accuracy(QUIET, "", '[{"qsl_idx": 0', ANSWERS, {}).invalid


def test_scores_are_means_over_the_samples_that_have_them() -> None:
    scores = {0: {"exact_match": 1.0, "rouge_l": 0.5}, 1: {"exact_match": 0.0}, 2: {}}
    verdict = read_accuracy(QUIET, "", log_of(*ANSWERS.items()), ANSWERS, scores)
    assert verdict.figures == {
        "accuracy_exact_match": (0.5, "fraction"),
        "accuracy_rouge_l": (0.5, "fraction"),
    }
