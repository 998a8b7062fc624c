"""A load test over divisible work: a load generator decides which sample is asked for, and when."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.core.base.wire_names import wire

# MLPerf's rules since MultiStream v2: each query asks for so many samples.
SAMPLES_PER_QUERY = 8


class Scenario(StrEnum):
    """How MLPerf's load generator asks. Offline: for all samples at once. Server: for one at a
    time, at random times of a given rate. The streams: as soon as the last query is answered.
    """

    OFFLINE = "offline"
    SERVER = "server"
    SINGLE_STREAM = "single-stream"
    MULTI_STREAM = "multi-stream"


class LoadMode(StrEnum):
    """Performance: samples may come again, until the rules are met. Accuracy: each comes once, and
    every answer is logged.
    """

    PERFORMANCE = "performance"
    ACCURACY = "accuracy"


@wire("LoadSource")
@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSource:
    """Which parameters of a workload say how the load generator asks, and which key of an output is
    what it logs in accuracy mode: a list of token ids. ``score``: the key of what an answer is
    worth there, from 0 to 1 by the name of the score; empty = nothing is scored.
    """

    rules: str
    scenario: str
    mode: str
    benchmark: str
    target_qps: str
    min_duration: str
    answer: str
    score: str = ""


@wire("LoadTerms")
@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTerms:
    """How one run's load generator asks.

    ``benchmark``: whose limits the ``rules`` use. ``target_qps``: samples per second that are
    asked for (Server) or expected (Offline); 0 = from what the workers reach while they warm up.
    ``min_duration_s``: shortest test; 0 = as the rules say.
    """

    rules: str
    scenario: Scenario
    mode: LoadMode
    benchmark: str
    target_qps: float
    min_duration_s: float
    answer: str
    score: str = ""

    def group(self, batch: int) -> int:
        """How many samples a worker gets together, where it can answer ``batch``: no group has
        samples of two queries.
        """
        match self.scenario:
            case Scenario.OFFLINE:
                return batch
            case Scenario.MULTI_STREAM:
                return math.gcd(batch, SAMPLES_PER_QUERY)
            case _:
                return 1
