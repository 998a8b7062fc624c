#!/bin/sh
# MLPerf's LoadGen 6.0.17 (PyPI mlcommons-loadgen) calls a Server test VALID whose system never reports a
# first token. With use_token_latencies and the limits of llama3_1-8b (TTFT 2 s, TPOT 100 ms) it notes one
# error a query, "Attempted to record a sample latency before it's first token latency", takes 0 for each
# time to the first token, and writes "Result is : VALID", "Performance constraints satisfied : Yes" and
# "Run successful" for TTFT's early stopping, which had nothing to judge. The errors are counted in the last
# line of the summary only: a program that reads the result takes the test for a good one.
#
# Seen on 2026-11-30: "Result is : VALID", "Max First Token latency (ns) : 0", 80 ERRORS for 80 queries.
#
# Needs Python 3.9 to 3.13 with venv on Linux x86-64, and a package index.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mlcommons-loadgen==6.0.17

cat >test.py <<'PYTHON'
import os, threading, time
import mlperf_loadgen as lg

open("user.conf", "w").write("*.Server.target_qps = 40.0\n")
settings = lg.TestSettings()
settings.FromConfig("user.conf", "llama3_1-8b", "Server")
settings.scenario = lg.TestScenario.Server
settings.mode = lg.TestMode.PerformanceOnly
settings.min_duration_ms, settings.min_query_count = 1000, 64
settings.performance_sample_count_override = 0
settings.server_target_latency_percentile = 0.9
assert settings.use_token_latencies and settings.ttft_latency == 2_000_000_000


def answer(ids):
    time.sleep(0.3)
    lg.QuerySamplesComplete([lg.QuerySampleResponse(i, 0, 0, 5) for i in ids])  # five tokens


def issue(samples):
    threading.Thread(target=answer, args=([s.id for s in samples],)).start()


logs = lg.LogSettings()
logs.log_output.outdir = "."
sut = lg.ConstructSUT(issue, lambda: None)
qsl = lg.ConstructQSL(20, 20, lambda _: None, lambda _: None)
lg.StartTestWithLogSettings(sut, qsl, settings, logs)
os._exit(0)
PYTHON
venv/bin/python test.py
grep -E 'Result is|constraints satisfied|ERRORS|Max First Token|^Min latency' mlperf_log_summary.txt
grep -q 'Result is : VALID' mlperf_log_summary.txt && grep -q 'ERRORS encountered' mlperf_log_summary.txt ||
    { echo 'this has changed' >&2; exit 1; }
