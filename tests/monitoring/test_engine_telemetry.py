"""What engines say of themselves, from the node's `/metrics` to the scaling signals."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from orchestrate_serving.telemetry import EngineTelemetry, parse_samples, quantile
from orchestrator.core.monitoring.run_samples import RunView
from orchestrator.core.monitoring.run_tally import RunTally
from orchestrator.core.monitoring.scaling_samples import ENGINE_FIGURES, scaling_signals
from orchestrator.core.run.events import Divided

VLLM = ["model_name"]


class Engine:
    """The metrics that vLLM has by these names, by the library that it uses."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        def gauge(name: str) -> Gauge:
            return Gauge(name, name, VLLM, registry=self.registry).labels("m")

        def counter(name: str) -> Counter:
            return Counter(name, name, VLLM, registry=self.registry).labels("m")

        self.running = gauge("vllm:num_requests_running")
        self.waiting = gauge("vllm:num_requests_waiting")
        self.cache = gauge("vllm:kv_cache_usage_perc")
        self.prompt = counter("vllm:prompt_tokens")
        self.generated = counter("vllm:generation_tokens")
        self.done = counter("vllm:request_success")
        self.latency = Histogram(
            "vllm:e2e_request_latency_seconds",
            "latency",
            VLLM,
            registry=self.registry,
            buckets=(1.0, 2.0, 4.0),
        ).labels("m")


@contextmanager
def answering(registry: CollectorRegistry) -> Iterator[str]:
    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = generate_latest(registry)
            self.send_response(200 if self.path == "/metrics" else 404)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.processes
def test_engines_of_a_node_add_up_and_latency_is_of_the_last_window() -> None:
    one, other = Engine(), Engine()
    one.running.set(3)
    other.running.set(4)
    one.waiting.set(5)
    one.cache.set(0.5)
    other.cache.set(0.9)
    one.prompt.inc(800)
    one.generated.inc(200)
    one.done.inc(10)
    for _ in range(100):
        one.latency.observe(3.9)
    with answering(one.registry) as first, answering(other.registry) as second:
        telemetry = EngineTelemetry([first, second, "http://127.0.0.1:9"])
        found = telemetry.read()
        for _ in range(100):
            other.latency.observe(0.5)
        later = telemetry.read()

    assert set(found) == ENGINE_FIGURES
    assert found["engine_requests_running"] == (7, "requests")
    assert found["engine_requests_waiting"] == (5, "requests")
    assert found["engine_cache_usage"] == (0.9, "fraction")
    assert found["engine_tokens_per_request"] == (100, "tokens")
    assert found["engine_latency_p95"][0] == pytest.approx(3.9)
    assert later["engine_latency_p95"][0] == pytest.approx(0.95)


@pytest.mark.processes
def test_an_engine_without_metrics_says_nothing() -> None:
    assert EngineTelemetry(["http://127.0.0.1:9"]).read() == {}
    assert list(parse_samples("<html>\nnot metrics at all\nx NaN\nx{} inf\ny abc\n")) == []


@pytest.mark.parametrize(
    "below, expected",
    [
        ([], None),
        ([(1.0, 0), (float("inf"), 0)], None),
        ([(1.0, 10), (2.0, 5)], None),
        ([(1.0, 100), (float("inf"), 100)], 0.95),
        ([(1.0, 0), (float("inf"), 100)], 1.0),
    ],
)
def test_quantiles_as_prometheus_draws_them(
    below: list[tuple[float, float]], expected: float | None
) -> None:
    assert quantile(below, 0.95) == expected


def run_with(engines: dict[str, dict[str, float]], left: int = 0) -> RunView:
    tally = RunTally()
    if left:
        tally.add(Divided(total=left + 5, done=5))
    return RunView(run_id="r", state="running", tally=tally, engines=engines)


def test_signals_add_up_what_waits_and_take_the_worst_of_the_rest() -> None:
    busy = {
        "engine_requests_waiting": 8.0,
        "engine_tokens_per_request": 500.0,
        "engine_latency_p95": 2.0,
        "engine_cache_usage": 0.99,
    }
    idle = {"engine_requests_waiting": 0.0, "engine_latency_p95": 9.0, "engine_cache_usage": 0.1}
    signals = scaling_signals([run_with({"a": busy, "b": idle}), run_with({}, left=7)])

    assert (signals.queue, signals.backlog) == (15, 4000)
    assert (signals.latency_p95, signals.saturation) == (9.0, 0.99)
    nothing = scaling_signals([run_with({})])
    assert (nothing.queue, nothing.backlog, nothing.saturation) == (None, None, None)
