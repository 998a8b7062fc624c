"""The same word, different figures: what five tools and we compute from one record.

| | TTFT from | TPOT | ITL | request latency from |
|---|---|---|---|---|
| scheduled (ours) | scheduled send | (last - first) / (out - 1) | every gap | scheduled send |
| mlperf | scheduled send | (last - first) / (out - 1) | - | scheduled send |
| vllm | actual send | (latency - TTFT) / (out - 1) | every gap | actual send |
| inference-perf | actual send | (latency - TTFT) / (out - 1) | every gap | actual send |
| aiperf | actual send | its ITL | (latency - TTFT) / (out - 1) | actual send |
| guidellm | actual send | (last - start) / out | (last - first) / (out - 1) | actual send |

Sources: AIPerf's metrics reference, guidellm's request statistics, vLLM's ``benchmarks/serve``,
inference-perf's report reference, MLPerf's inference rules on token latencies. A request ends with
its last content in all of them. NTPOT is inference-perf's latency / out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from ..base.records import RequestRecord

GAPS, MEAN, NONE = "every gap", "a request's mean", "not defined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One tool's way to compute latencies. All are in seconds; requests must have content."""

    name: str
    from_scheduled: bool = False
    tpot_with_first: bool = False
    itl: str = GAPS

    def start(self, record: RequestRecord) -> float:
        """What latencies are measured from."""
        return record.scheduled_s if self.from_scheduled else record.sent_s

    def ttft(self, record: RequestRecord) -> float:
        """Time to first token."""
        return record.first_s - self.start(record)

    def latency(self, record: RequestRecord) -> float:
        """Request latency: until the last content."""
        return record.last_s - self.start(record)

    def tpot(self, record: RequestRecord) -> float | None:
        """Time per output token; None for one token, unless the first one counts."""
        if self.tpot_with_first:
            return self.latency(record) / record.output_tokens if record.output_tokens else None
        return _mean_gap(record)

    def ntpot(self, record: RequestRecord) -> float | None:
        """Normalised: request latency over all output tokens."""
        return self.latency(record) / record.output_tokens if record.output_tokens else None

    def itls(self, record: RequestRecord) -> Iterator[float]:
        """Inter-token latencies: one for each gap between chunks, or one for the request."""
        if self.itl == GAPS:
            yield from (later - earlier for earlier, later in pairwise(record.chunks_s))
        elif self.itl == MEAN and (mean := _mean_gap(record)) is not None:
            yield mean


def _mean_gap(record: RequestRecord) -> float | None:
    """(latency - TTFT) / (out - 1): the start cancels."""
    if record.output_tokens < 2:
        return None
    return (record.last_s - record.first_s) / (record.output_tokens - 1)


DEFINITIONS: Mapping[str, Definition] = {
    each.name: each
    for each in (
        Definition(name="scheduled", from_scheduled=True),
        Definition(name="mlperf", from_scheduled=True, itl=NONE),
        Definition(name="vllm"),
        Definition(name="inference-perf"),
        Definition(name="aiperf", itl=MEAN),
        Definition(name="guidellm", itl=MEAN, tpot_with_first=True),
    )
}
