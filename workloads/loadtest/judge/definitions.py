"""The same word, different figures: what five tools and we compute from one record.

| | TTFT from | TPOT | ITL | request latency from |
|---|---|---|---|---|
| scheduled (ours) | scheduled send | (last - first) / (out - 1) | every gap | scheduled send |
| mlperf | scheduled send | (last - first) / (out - 1) | - | scheduled send |
| vllm | actual send, to any chunk | (latency - TTFT) / (out - 1) | every gap | actual send |
| inference-perf | actual send | (latency - TTFT) / (out - 1) | every gap | actual send |
| aiperf | actual send | its ITL | (latency - TTFT) / (out - 1) | actual send |
| guidellm | actual send | (last - start) / out | (last - first) / (out - 1) | actual send |

Sources: AIPerf's metrics reference, guidellm's request statistics, vLLM's ``benchmarks/serve``,
inference-perf's report reference, MLPerf's inference rules on token latencies. The first token is
the first content and a request ends with its last in all but vLLM (0.32): there a chunk without
content, such as a role, counts as well. NTPOT is inference-perf's latency / out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..base.records import RequestRecord

GAPS, MEAN, NONE = "every gap", "a request's mean", "not defined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One tool's way to compute latencies. All are in seconds; requests must have content.

    ``empty_chunks``: whether a chunk without content counts as a token's.
    """

    name: str
    empty_chunks: bool = False
    from_scheduled: bool = False
    tpot_with_first: bool = False
    itl: str = GAPS

    def start(self, record: RequestRecord) -> float:
        """What latencies are measured from."""
        return record.scheduled_s if self.from_scheduled else record.sent_s

    def chunks(self, record: RequestRecord) -> Sequence[float]:
        """When each chunk came that counts as a token's."""
        if not self.empty_chunks:
            return record.chunks_s
        around = ([record.opened_s], record.chunks_s, [record.closed_s])
        return [at_s for part in around for at_s in part if not math.isnan(at_s)]

    def ttft(self, record: RequestRecord) -> float:
        """Time to first token."""
        return self.chunks(record)[0] - self.start(record)

    def latency(self, record: RequestRecord) -> float:
        """Request latency: until the last token."""
        return self.chunks(record)[-1] - self.start(record)

    def tpot(self, record: RequestRecord) -> float | None:
        """Time per output token; None for one token, unless the first one counts."""
        if self.tpot_with_first:
            return self.latency(record) / record.output_tokens if record.output_tokens else None
        return self._mean_gap(record)

    def ntpot(self, record: RequestRecord) -> float | None:
        """Normalised: request latency over all output tokens."""
        return self.latency(record) / record.output_tokens if record.output_tokens else None

    def itls(self, record: RequestRecord) -> Iterator[float]:
        """Inter-token latencies: one for each gap between chunks, or one for the request."""
        if self.itl == GAPS:
            yield from (later - earlier for earlier, later in pairwise(self.chunks(record)))
        elif self.itl == MEAN and (mean := self._mean_gap(record)) is not None:
            yield mean

    def _mean_gap(self, record: RequestRecord) -> float | None:
        """(latency - TTFT) / (out - 1): the start cancels."""
        if record.output_tokens < 2:
            return None
        chunks = self.chunks(record)
        return (chunks[-1] - chunks[0]) / (record.output_tokens - 1)


DEFINITIONS: Mapping[str, Definition] = {
    each.name: each
    for each in (
        Definition(name="scheduled", from_scheduled=True),
        Definition(name="mlperf", from_scheduled=True, itl=NONE),
        Definition(name="vllm", empty_chunks=True),
        Definition(name="inference-perf"),
        Definition(name="aiperf", itl=MEAN),
        Definition(name="guidellm", itl=MEAN, tpot_with_first=True),
    )
}
