"""From records to figures: five tools' definitions, certificates, goodput, failures, validity."""

from __future__ import annotations

import io
import math
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.base.records import RecordError, RequestRecord, from_line, read_records, to_line
from loadtest.base.stages import Saturation
from loadtest.judge.backlog import Backlog
from loadtest.judge.definitions import DEFINITIONS
from loadtest.judge.failed_requests import FailedRequests
from loadtest.judge.percentiles import (
    CONFIDENCE,
    Histogram,
    certified,
    least_samples,
    percentile,
)
from loadtest.judge.rate_search import Trial, best_rate, next_rate
from loadtest.judge.summary import Objectives, Summary
from loadtest.judge.validity import Bounds, LoadEvidence, invalid_reasons
from tests.time_limits import wait_for_exit

UNDER_LOADGEN = Path(__file__).parent / "programs" / "under_loadgen.py"
# Due at 10 s, sent 0.5 s late; four chunks, of which the last has two tokens.
CRAFTED = RequestRecord(
    index=0,
    scheduled_s=10.0,
    sent_s=10.5,
    chunks_s=(11.0, 11.1, 11.4, 11.5),
    end_s=11.7,
    output_tokens=5,
    prompt_tokens=7,
)
GAPS = [0.1, 0.3, 0.1]
MEAN_GAP = 0.5 / 4
seconds = st.floats(0, 1e4).map(lambda value: round(value, 6))


def record(  # noqa: PLR0917 - a table of its own
    index: int = 0,
    due_s: float = 0.0,
    ttft_s: float = 0.1,
    gap_s: float = 0.01,
    tokens: int = 3,
    failure: str = "",
    lag_s: float = 0.0,
) -> RequestRecord:
    chunks = tuple(due_s + ttft_s + gap_s * number for number in range(tokens))
    return RequestRecord(
        index=index,
        scheduled_s=due_s,
        sent_s=due_s + lag_s,
        chunks_s=chunks,
        end_s=chunks[-1] if chunks else due_s,
        output_tokens=tokens,
        prompt_tokens=4,
        failure=failure,
    )


def summarise(records: Sequence[RequestRecord], **objectives: float) -> Summary:
    summary = Summary(DEFINITIONS["scheduled"], Objectives(**objectives))
    for each in records:
        summary.add("here", each)
    return summary


@pytest.mark.parametrize(
    "tool, ttft, tpot, itls, latency",
    [
        ("scheduled", 1.0, MEAN_GAP, GAPS, 1.5),
        ("mlperf", 1.0, MEAN_GAP, [], 1.5),
        ("vllm", 0.5, MEAN_GAP, GAPS, 1.0),
        ("inference-perf", 0.5, MEAN_GAP, GAPS, 1.0),
        ("aiperf", 0.5, MEAN_GAP, [MEAN_GAP], 1.0),
        ("guidellm", 0.5, 1.0 / 5, [MEAN_GAP], 1.0),
    ],
)
def test_five_tools_have_their_own_figures_of_one_request(
    tool: str, ttft: float, tpot: float, itls: list[float], latency: float
) -> None:
    definition = DEFINITIONS[tool]

    assert definition.ttft(CRAFTED) == pytest.approx(ttft)
    assert definition.tpot(CRAFTED) == pytest.approx(tpot)
    assert list(definition.itls(CRAFTED)) == pytest.approx(itls)
    assert definition.latency(CRAFTED) == pytest.approx(latency)
    assert definition.ntpot(CRAFTED) == pytest.approx(latency / 5)


def test_vllm_takes_a_chunk_without_content_for_a_token() -> None:
    """A role before the first content, the reason of the end after the last; nobody else does."""
    framed = replace(CRAFTED, opened_s=10.6, closed_s=11.6)
    found = from_line(to_line(framed))
    assert (found.opened_s, found.closed_s) == pytest.approx((10.6, 11.6))
    vllm = DEFINITIONS["vllm"]
    assert (vllm.ttft(framed), vllm.latency(framed)) == pytest.approx((0.1, 1.1))
    assert vllm.tpot(framed) == pytest.approx(1.0 / 4)
    assert list(vllm.itls(framed)) == pytest.approx([0.4, *GAPS, 0.1])
    for name in DEFINITIONS.keys() - {"vllm"}:
        assert DEFINITIONS[name].ttft(framed) == DEFINITIONS[name].ttft(CRAFTED)
        assert DEFINITIONS[name].latency(framed) == DEFINITIONS[name].latency(CRAFTED)


def test_one_token_has_no_time_between_tokens() -> None:
    single = replace(CRAFTED, chunks_s=(11.0,), output_tokens=1)

    for name in ("scheduled", "mlperf", "vllm", "inference-perf", "aiperf"):
        assert DEFINITIONS[name].tpot(single) is None
        assert not list(DEFINITIONS[name].itls(single))
    assert DEFINITIONS["guidellm"].tpot(single) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "percent, samples", [(50, 11), (75, 24), (80, 31), (90, 64), (95, 130), (97, 219), (99, 662)]
)
def test_a_certificate_needs_as_many_values_as_mlperf_says(percent: float, samples: int) -> None:
    values = [float(number) for number in range(samples)]

    assert least_samples(percent) == samples
    assert certified(values[:-1], percent) is None
    assert certified(values, percent) == values[-1]


def test_a_certificate_for_p99_9_and_for_a_million_values() -> None:
    assert least_samples(99.9) == 6636
    values = range(1_000_000)
    found = certified(values, 50)
    assert found is not None
    # The normal approximation of the bound: 2.326 deviations of 500 above the median.
    assert found == pytest.approx(500_000 + 2.326 * 500, abs=3)


def binomial_tail(count: int, most: int, over: float) -> float:
    return sum(math.comb(count, k) * over**k * (1 - over) ** (count - k) for k in range(most + 1))


@given(st.integers(1, 900), st.sampled_from([50.0, 90.0, 95.0, 99.0]))
def test_a_certificate_is_the_largest_count_that_the_bound_allows(
    count: int, percent: float
) -> None:
    over = 1 - percent / 100
    values = [float(number) for number in range(count)]

    found = certified(values, percent)

    if found is None:
        assert binomial_tail(count, 1, over) > 1 - CONFIDENCE
    else:
        most = count - int(found)
        assert binomial_tail(count, most, over) <= 1 - CONFIDENCE
        assert binomial_tail(count, most + 1, over) > 1 - CONFIDENCE


@pytest.mark.processes
@pytest.mark.parametrize("percent", [90, 99])
def test_a_certificate_is_the_estimate_of_the_real_loadgen(tmp_path: Path, percent: int) -> None:
    """Of the same latencies, in nanoseconds."""
    pytest.importorskip("mlperf_loadgen")
    process = subprocess.Popen([sys.executable, str(UNDER_LOADGEN)], cwd=tmp_path, text=True)
    assert wait_for_exit(process, 60) == 0
    summary = (tmp_path / "mlperf_log_summary.txt").read_text()
    trace = (tmp_path / "mlperf_log_trace.json").read_text()
    latencies = sorted(map(int, re.findall(r'"complete_ns":(\d+)', trace)))

    (theirs,) = re.findall(rf"Early stopping {percent}\.0th percentile estimate: (\d+)", summary)

    assert len(latencies) == 800
    assert certified(latencies, percent) == int(theirs)


def test_a_certificate_holds_as_often_as_it_promises() -> None:
    """The true 90th percentile of an exponential is ln 10; at most 1 % of estimates are below."""
    random = Random(5)
    estimates = [
        certified(sorted(random.expovariate(1.0) for _ in range(200)), 90) for _ in range(1000)
    ]

    below = sum(estimate is not None and estimate < math.log(10) for estimate in estimates)

    assert below <= 20


@given(st.lists(seconds, min_size=1), st.floats(0, 100))
def test_percentiles_lie_between_the_extremes(values: list[float], percent: float) -> None:
    ordered = sorted(values)

    found = percentile(ordered, percent)

    assert ordered[0] <= found <= ordered[-1]
    assert percentile(ordered, 0) == ordered[0]
    assert percentile(ordered, 100) == ordered[-1]


@given(st.lists(st.floats(1e-6, 1e3), min_size=1), st.sampled_from([50.0, 90.0, 99.0, 99.9]))
def test_a_histogram_has_the_percentile_of_the_nearest_rank(
    values: list[float], percent: float
) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)

    exact = sorted(values)[max(1, math.ceil(len(values) * percent / 100)) - 1]

    assert histogram.percentile(percent) == pytest.approx(exact, rel=1.1e-3)
    assert histogram.mean == pytest.approx(sum(values) / len(values))


@given(
    st.lists(seconds, max_size=20),
    seconds,
    st.sampled_from(["", "timeout"]),
    st.text(max_size=20),
)
def test_records_survive_their_file(
    chunks: list[float], due_s: float, failure: str, detail: str
) -> None:
    kept = RequestRecord(
        index=3,
        scheduled_s=due_s,
        sent_s=math.nan if failure else due_s,
        chunks_s=sorted(chunks),
        end_s=max([*chunks, due_s]),
        output_tokens=len(chunks),
        failure=failure,
        detail=detail if failure else "",
    )

    (found,) = read_records(io.StringIO(to_line(kept) + "\n" + to_line(kept)[:-3]), "it")

    assert list(found.chunks_s) == pytest.approx(list(kept.chunks_s), abs=2e-6)
    assert replace(found, chunks_s=(), sent_s=0.0) == replace(kept, chunks_s=(), sent_s=0.0)
    assert found.sent == kept.sent


@pytest.mark.parametrize(
    "line", ["{}", "[]", "nonsense", '{"index": 1, "scheduled": "x"}', "[" * 10**5]
)
def test_a_line_that_is_no_record_is_named(line: str) -> None:
    with pytest.raises(RecordError, match="it:2: "):
        list(read_records(io.StringIO(to_line(CRAFTED) + "\n" + line + "\n"), "it"))


@given(st.text())
def test_any_text_is_a_record_or_an_error(line: str) -> None:
    try:
        from_line(line)
    except RecordError:
        return


def test_failures_are_counted_and_in_no_latency() -> None:
    fine = [record(index, due_s=index * 0.1) for index in range(10)]
    broken = [
        record(index, ttft_s=50.0, failure=kind)
        for index, kind in enumerate(["timeout", "timeout", "truncated"])
    ]

    with_failures, without = summarise([*fine, *broken]), summarise(fine)

    assert with_failures.spreads() == without.spreads()
    assert with_failures.failures.kinds == {"timeout": 2, "truncated": 1}
    assert with_failures.failed == 3
    assert with_failures.good_fraction == pytest.approx(10 / 13)


@pytest.mark.parametrize(
    "kinds,detail,id,hint",
    [
        (
            ["status 429", "status 503", "timeout"],
            "(retry-after: 7)",
            "OR-SERVE-007",
            "as too many",
        ),
        (["refused", "closed", "timeout"], "", "OR-SERVE-008", "closes connections"),
        (["timeout", "timeout", "refused"], "", "OR-LOAD-006", "--set timeout="),
        (["status 400"], "Unknown field: stream_options", "OR-LOAD-006", "ask_usage=false"),
        (["status 400"], "use max_completion_tokens", "OR-LOAD-006", "limit_field="),
        (["status 307"], "(location: http://x/)", "OR-LOAD-006", "no redirect is followed"),
    ],
)
def test_failed_requests_are_named_by_what_most_of_them_are(
    kinds: list[str], detail: str, id: str, hint: str
) -> None:
    failures = FailedRequests()
    for index, kind in enumerate(kinds):
        failures.add(replace(record(index, due_s=2.0 + index, failure=kind), detail=detail))

    assert failures.id == id
    assert hint in failures.cause
    assert f"1 {kinds[0]}" in failures.cause or f"2 {kinds[0]}" in failures.cause
    assert detail in failures.cause
    assert (f"due 2.0 to {1.0 + len(kinds)} s" in failures.cause) == (len(kinds) > 1)


def test_goodput_counts_requests_that_meet_every_objective() -> None:
    records = [
        record(0, ttft_s=0.1, gap_s=0.01),
        record(1, ttft_s=0.3, gap_s=0.01),
        record(2, ttft_s=0.1, gap_s=0.5),
        record(3, ttft_s=0.1, tokens=1),
    ]

    summary = summarise(records, ttft_s=0.2, tpot_s=0.05)

    assert summary.good == 2
    assert summary.rates().goodput == pytest.approx(summary.rates().requests / 2)


def test_senders_are_pooled_and_never_averaged() -> None:
    """The median of 90 fast and 10 slow requests is a fast one; rates are added up."""
    summary = Summary(DEFINITIONS["scheduled"], Objectives())
    for index in range(90):
        summary.add("first", record(index, due_s=index / 90, ttft_s=0.1, tokens=1))
    for index in range(10):
        summary.add("second", record(index, due_s=100 + index / 10, ttft_s=1.0, tokens=1))

    ttft = next(spread for spread in summary.spreads() if spread.name == "ttft")

    assert ttft.count == 100
    assert ttft.at(50) == pytest.approx(0.1)
    assert ttft.at(95) == pytest.approx(1.0)
    first, second = 90 / (89 / 90 + 0.1), 10 / (0.9 + 1.0)
    assert summary.rates().requests == pytest.approx(first + second)


EVIDENCE = LoadEvidence(rate=10.0, ceiling=1000.0)
BOUNDS = Bounds(rate_tolerance=0.01, lag_s=1e-3)


def sent(count: int = 100, lag_s: float = 0.0) -> Summary:
    summary = summarise([record(index, due_s=index / 10, lag_s=lag_s) for index in range(count)])
    summary.expect("here", 10.0)
    return summary


def test_a_load_as_configured_is_valid() -> None:
    assert invalid_reasons(sent(), EVIDENCE, BOUNDS) == []


@pytest.mark.parametrize(
    "summary, evidence, reason",
    [
        (sent(98), EVIDENCE, "delivered 9.8 requests/s, configured 10"),
        (sent(lag_s=0.002), EVIDENCE, "p99 2 ms behind their schedule, the bound is 1 ms"),
        (sent(), replace(EVIDENCE, ceiling=19.0), "more than half of what this client reaches"),
        (summarise([]), EVIDENCE, "no request was sent"),
        (summarise([record(failure="refused")]), EVIDENCE, "no request succeeded: 1 refused"),
        (
            sent(),
            replace(EVIDENCE, whole=False, cut_short="stopped after 1 s"),
            "stopped after 1 s",
        ),
        (sent(), replace(EVIDENCE, backlog=Backlog(3.0)), "too short to tell"),
        (sent(), replace(EVIDENCE, failure="it died"), "did not come to its end: it died"),
        (
            sent(),
            replace(EVIDENCE, saturation=Saturation(at_s=20, rate=80, backlog_per_s=60)),
            "over-saturated after 20 s: 80 requests/s arrive, 9.98 are completed",
        ),
    ],
)
def test_a_load_that_proves_nothing_says_why(
    summary: Summary, evidence: LoadEvidence, reason: str
) -> None:
    assert any(reason in text for text in invalid_reasons(summary, evidence, BOUNDS))


@given(st.floats(0.1, 5000), st.floats(0.5, 100))
def test_a_search_finds_the_highest_rate_that_meets(limit: float, first: float) -> None:
    trials: list[Trial] = []
    while (rate := next_rate(trials, first=first, precision=0.02, most_trials=40)) is not None:
        trials.append(Trial(rate=rate, met=rate <= limit))

    found = best_rate(trials)

    assert len(trials) < 40
    assert found is not None
    assert found <= limit <= found * 1.021


def test_a_search_that_finds_nothing_ends_and_noise_does_not_raise_the_answer() -> None:
    trials = [Trial(rate=2.0**-step, met=False) for step in range(5)]
    assert next_rate(trials, first=1, precision=0.1, most_trials=5) is None
    assert best_rate(trials) is None
    noisy = [Trial(rate=1, met=True), Trial(rate=2, met=False), Trial(rate=4, met=True)]
    assert best_rate(noisy) == 1
