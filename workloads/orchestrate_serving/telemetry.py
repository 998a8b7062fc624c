"""How busy the engines of this node are, as their own metrics say: vLLM, SGLang, llama.cpp.

An engine that has no metrics, or other ones, costs nothing but the question: SGLang needs
``--enable-metrics``, llama.cpp ``--metrics``.
"""

from __future__ import annotations

import http.client
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from urllib.parse import urlsplit

MAX_BYTES = 4 * 1024 * 1024
ANSWER_S = 2.0
QUANTILE = 0.95
RUNNING = ("vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing")
WAITING = ("vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred")
CACHE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage")
DONE = ("vllm:request_success_total", "sglang:num_requests_total")
TOKENS = (
    "vllm:prompt_tokens_total",
    "vllm:generation_tokens_total",
    "sglang:prompt_tokens_total",
    "sglang:generation_tokens_total",
)
LATENCY = (
    "vllm:e2e_request_latency_seconds_bucket",
    "sglang:e2e_request_latency_seconds_bucket",
)
SAMPLE = re.compile(r"([A-Za-z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+\d+)?")
BOUND = re.compile(r'\ble="([^"]+)"')
Sample = tuple[str, float, float]  # name, value, bound of a bucket (NaN of anything else)


class EngineTelemetry:
    """Asks engines by their addresses, such as ``http://127.0.0.1:8000``."""

    def __init__(self, base_urls: Iterable[str]) -> None:
        self._urls = tuple(base_urls)
        self._before: Counter[float] = Counter()  # requests up to each bound, at the last look

    def read(self) -> dict[str, tuple[float, str]]:
        """Name -> (value, unit) of what the engines say: requests added up, the fullest cache, the
        95th percentile of latency since the last look, tokens of a finished request so far.
        """
        engines = [list(parse_samples(answer)) for url in self._urls if (answer := ask(url))]
        every = [sample for engine in engines for sample in engine]
        caches = [value for name, value, _ in every if name in CACHE]
        found = {
            "engine_requests_running": (total(every, RUNNING), "requests"),
            "engine_requests_waiting": (total(every, WAITING), "requests"),
            "engine_cache_usage": (max(caches, default=None), "fraction"),
            "engine_latency_p95": (self._latency(every), "s"),
            "engine_tokens_per_request": (
                ratio(total(every, TOKENS), total(every, DONE)),
                "tokens",
            ),
        }
        return {name: (value, unit) for name, (value, unit) in found.items() if value is not None}

    def _latency(self, samples: Sequence[Sample]) -> float | None:
        now: Counter[float] = Counter()
        for name, value, bound in samples:
            if name in LATENCY and not math.isnan(bound):
                now[bound] += value  # type: ignore[assignment]
        since = [(bound, now[bound] - self._before[bound]) for bound in sorted(now)]
        self._before = now
        return quantile(since, QUANTILE)


def total(samples: Iterable[Sample], names: Sequence[str]) -> float | None:
    """The sum; None where no engine says any of it."""
    found = [value for name, value, _ in samples if name in names]
    return sum(found) if found else None


def ratio(above: float | None, below: float | None) -> float | None:
    """None where either is not known, or nothing is below."""
    return above / below if above is not None and below else None


def quantile(below: Sequence[tuple[float, float]], share: float) -> float | None:
    """Of (bound, observations up to it), by lines between bounds as Prometheus draws them; beyond
    the last finite bound, that bound. None without observations, or of a server that began anew.
    """
    counts = [count for _, count in below]
    if not counts or counts[-1] <= 0 or any(later < earlier for earlier, later in pairwise(counts)):
        return None
    wanted, start, before = share * counts[-1], 0.0, 0.0
    for bound, count in below:
        if count >= wanted:
            inside = count - before
            part = (wanted - before) / inside if inside else 0.0
            return start if math.isinf(bound) else start + (bound - start) * part
        start, before = bound, count
    return None


def parse_samples(text: str) -> Iterable[Sample]:
    """Lines of Prometheus' text format; what is none is passed over."""
    for line in text.splitlines():
        match = SAMPLE.fullmatch(line)
        if match is None:
            continue
        bound = BOUND.search(match[2] or "")
        try:
            value, limit = float(match[3]), float(bound[1]) if bound else math.nan
        except ValueError:
            continue
        if math.isfinite(value):
            yield match[1], value, limit


def ask(base_url: str) -> str:
    """The answer to ``/metrics``; empty where there is none."""
    place = urlsplit(base_url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=ANSWER_S)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        return answer.read(MAX_BYTES).decode("utf-8", "replace") if answer.status == 200 else ""
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()
