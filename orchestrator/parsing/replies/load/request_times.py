"""Lines of ``requests.jsonl``, which the workload ``loadtest`` leaves in a run's outputs."""

from __future__ import annotations

import json
import math
from typing import Any

from orchestrator.core.monitoring.request_latencies import RequestTimes

STOPPED = "stopped"  # in flight when the load was ended: neither a success nor a failure


class NoRequest(ValueError):
    """The line is no record of a request, or one that counts nowhere."""


def parse_request_times(line: bytes) -> RequestTimes | None:
    """None of a request that failed. Raises :class:`NoRequest`."""
    try:
        entry: Any = json.loads(line)
        failure = entry.get("failure", "")
        if failure == STOPPED:
            raise NoRequest("stopped")
        if failure:
            return None
        return _parse_times(entry)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise NoRequest(str(error)[:200]) from error


def _parse_times(entry: dict[str, Any]) -> RequestTimes:
    latency = _seconds(entry["end"] - entry["scheduled"])
    chunks, tokens = entry["chunks_us"], int(entry["output_tokens"])
    if not chunks:
        return RequestTimes(latency=latency, first=None, token=None)
    first, last = _seconds(chunks[0] / 1e6), _seconds(chunks[-1] / 1e6)
    token = _seconds((last - first) / (tokens - 1)) if tokens > 1 else None
    return RequestTimes(latency=latency, first=first, token=token)


def _seconds(value: float) -> float:
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"{value!r} is no time")
    return value
