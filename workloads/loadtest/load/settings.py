"""What the script takes on its command line."""

from __future__ import annotations

from dataclasses import dataclass

from ..judge.definitions import DEFINITIONS, Definition
from ..judge.evaluation import Terms
from ..judge.summary import Objectives
from ..judge.validity import Bounds


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every parameter of a load test; workload.yaml says what each is, and what it may be."""

    endpoint: str
    engine: str
    command: str
    engine_arguments: str
    engines: int
    tensor_parallel: int
    model: str
    shape: str
    api: str
    arrival: str
    rate: float
    final_rate: float
    steps: int
    burstiness: float
    concurrency: int
    duration: float
    trace: str
    trace_unit: str
    prompts: str
    prompt_words: int
    output_tokens: int
    ignore_eos: bool
    ask_usage: bool
    limit_field: str
    warmup: int
    timeout: float
    slo_ttft: float
    slo_tpot: float
    slo_latency: float
    slo_share: float
    definitions: str
    processes: int
    max_lag: float
    rate_tolerance: float
    max_failed: float
    seed: int
    cross_check: str
    cross_check_program: str
    cross_check_tokenizer: str

    @property
    def terms(self) -> Terms:
        """What records are judged by."""
        return self.terms_of(DEFINITIONS[self.definitions])

    def terms_of(self, definition: Definition) -> Terms:
        """The same with other definitions of latencies."""
        return Terms(
            definition=definition,
            objectives=self.objectives,
            bounds=Bounds(rate_tolerance=self.rate_tolerance, lag_s=self.max_lag),
            good_share=self.slo_share,
            most_failed=self.max_failed,
        )

    @property
    def objectives(self) -> Objectives:
        return Objectives(ttft_s=self.slo_ttft, tpot_s=self.slo_tpot, latency_s=self.slo_latency)
