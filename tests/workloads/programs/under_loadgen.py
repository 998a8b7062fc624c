"""LoadGen measures queries that take random times; it leaves its summary and a trace here."""

from __future__ import annotations

import random
import time
from typing import Any

import mlperf_loadgen as loadgen

QUERIES, MEAN_S = 800, 0.0003


def answer(samples: list[Any]) -> None:
    until = time.perf_counter() + random.expovariate(1 / MEAN_S)
    while time.perf_counter() < until:
        pass
    loadgen.QuerySamplesComplete([loadgen.QuerySampleResponse(s.id, 0, 0) for s in samples])


def ignore(samples: object = None) -> None:
    del samples


settings = loadgen.TestSettings()
settings.scenario = loadgen.TestScenario.SingleStream
settings.mode = loadgen.TestMode.PerformanceOnly
settings.min_duration_ms = 1
settings.min_query_count = settings.max_query_count = QUERIES
logs = loadgen.LogSettings()
logs.enable_trace = True
loadgen.StartTestWithLogSettings(
    loadgen.ConstructSUT(answer, ignore),
    loadgen.ConstructQSL(8, 8, ignore, ignore),
    settings,
    logs,
)
