"""LoadGen's own files, after a test: what it says of it, and why it does not accept it. Pure.

What it wrote counts, not how its process ended: it has crashed after a good test, and left an empty
summary before a normal exit. And VALID counts only without errors: a sample that is completed
twice, or without its first token, is an error in the log under the words "Result is : VALID".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

_PAIR = re.compile(r"^\s*([^:]{1,80}?)\s*:\s*(.{1,200}?)\s*$", re.MULTILINE)
_ERRORS = re.compile(r"^(\d{1,12}|No) ERRORS? encountered", re.MULTILINE | re.IGNORECASE)
_NANOSECONDS = " (ns)"
MAX_REASONS = 4
MAX_REASON = 200
# Names in the summary, and what a figure is called here; nanoseconds become seconds.
_RATES = {
    "Samples per second": ("loadgen_samples_per_s", "samples/s"),
    "Completed samples per second": ("loadgen_samples_per_s", "samples/s"),
    "QPS w/o loadgen overhead": ("loadgen_samples_per_s", "samples/s"),
    "Tokens per second": ("loadgen_tokens_per_s", "tok/s"),
    "Completed tokens per second": ("loadgen_tokens_per_s", "tok/s"),
    "TPS w/o loadgen overhead": ("loadgen_tokens_per_s", "tok/s"),
}
_TIMES = {
    "percentile latency": "loadgen_latency",
    "percentile first token latency": "loadgen_ttft",
    "percentile time to output token": "loadgen_tpot",
}
_PERCENTILES = {"50.00": "p50", "90.00": "p90", "99.00": "p99"}
_CONDITIONS = (
    "Performance constraints satisfied",
    "Min duration satisfied",
    "Min queries satisfied",
    "Early stopping satisfied",
)
_ADVICE = (
    "result_invalid_reason",
    "early_stopping_result",
    "early_stopping_ttft_result",
    "early_stopping_tpot_result",
)
_FULFILLED = ("Run successful", "Processed at least")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadGenVerdict:
    """``invalid``: why the test is not accepted, "" if it is. ``figures`` maps a name to its value
    and unit.
    """

    invalid: str
    figures: Mapping[str, tuple[float, str]] = field(default_factory=dict)


def read_performance(summary: str, detail: str) -> LoadGenVerdict:
    """The verdict of a performance test, from the text of both files."""
    pairs = dict(_PAIR.findall(summary))
    result = pairs.get("Result is", "")
    reasons = [*_error_reasons(summary, detail)]
    if result != "VALID":
        unmet = [name for name in _CONDITIONS if pairs.get(name, "Yes") != "Yes"]
        said = f"LoadGen says {result}" if result else "LoadGen wrote no verdict"
        reasons.insert(0, said + (f": {', '.join(map(_unmet, unmet))}" if unmet else ""))
        reasons += _advice(detail)
    return LoadGenVerdict(invalid="; ".join(reasons), figures=dict(_figures(pairs)))


def read_accuracy(
    summary: str,
    detail: str,
    log: str,
    expected: Mapping[int, bytes],
    scores: Mapping[int, Mapping[str, float]],
) -> LoadGenVerdict:
    """The verdict of an accuracy test: each sample is logged once, with the answer that it got.

    ``expected`` maps samples of the data set to what LoadGen was given, ``scores`` to what these
    answers are worth; figures are means over the samples that have a score.
    """
    reasons = [*_error_reasons(summary, detail)]
    try:
        rows = [(int(row["qsl_idx"]), bytes.fromhex(row["data"])) for row in json.loads(log)]
    except (ValueError, KeyError, TypeError, RecursionError):
        reasons.insert(0, "LoadGen's accuracy log is not whole")
    else:
        logged = dict(rows)
        if len(rows) != len(expected) or logged.keys() != expected.keys():
            what = f"{len(rows)} answers of {len(logged)} samples for {len(expected)} samples"
            reasons.append(f"LoadGen's accuracy log holds {what}")
        elif wrong := [index for index in expected if logged[index] != expected[index]]:
            reasons.append(f"LoadGen logged another answer of sample {wrong[0]} than it was given")
    return LoadGenVerdict(invalid="; ".join(reasons), figures=dict(_mean_scores(scores.values())))


def _mean_scores(
    scores: Collection[Mapping[str, float]],
) -> Iterator[tuple[str, tuple[float, str]]]:
    for name in dict.fromkeys(name for each in scores for name in each):
        values = [each[name] for each in scores if name in each]
        yield f"accuracy_{name}", (math.fsum(values) / len(values), "fraction")


def _error_reasons(summary: str, detail: str) -> Iterator[str]:
    """What LoadGen itself counts as errors; a summary that does not say is not whole."""
    told = _ERRORS.search(summary)
    if told is None:
        yield "LoadGen's summary is not whole"
    elif told[1].lower() != "no":
        first = next((str(value) for _, value in _entries(detail, "is_error")), "")
        yield f"{told[1]} errors in LoadGen's detail log" + (f": {first}"[:MAX_REASON])


def _unmet(condition: str) -> str:
    return f"{condition[0].lower()}{condition[1:]}".replace(" satisfied", " not satisfied")


def _advice(detail: str) -> list[str]:
    """What LoadGen recommends, which it files under reasons, and how far early stopping got."""
    texts = [str(value) for key, value in _entries(detail) if key in _ADVICE]
    open_ones = (text for text in texts if not any(word in text for word in _FULFILLED))
    plain = (" ".join(text.replace(" * ", " ").split())[:MAX_REASON] for text in open_ones)
    return list(dict.fromkeys(filter(None, plain)))[:MAX_REASONS]


def _entries(detail: str, flag: str = "") -> Iterator[tuple[str, object]]:
    """(key, value) of each line of the log, or of those with a flag in their metadata."""
    for line in detail.splitlines():
        try:
            entry = json.loads(line.partition(":::MLLOG ")[2])
            if not flag or entry["metadata"][flag]:
                yield str(entry["key"]), entry["value"]
        except (ValueError, KeyError, TypeError, RecursionError):
            continue


def _figures(pairs: Mapping[str, str]) -> Iterator[tuple[str, tuple[float, str]]]:
    for label, text in pairs.items():
        value = _number(text)
        if value is None:
            continue
        if label in _RATES:
            name, unit = _RATES[label]
            yield name, (value, unit)
        percent, _, what = label.removesuffix(_NANOSECONDS).partition(" ")
        name = _TIMES.get(" ".join(what.split()), "")
        if name and percent in _PERCENTILES:
            yield f"{name}_{_PERCENTILES[percent]}", (value / 1e9, "s")


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
