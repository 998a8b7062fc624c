#!/bin/sh
# MLPerf's LoadGen 6.0.17 (PyPI mlcommons-loadgen), MultiStream with use_token_latencies: the early-stopping
# estimates under "TTFT Early Stopping Result" and "TPOT Early Stopping Result" are both the latency of the
# whole query. Here each answer's first token comes after 5 ms and the other four at once, so that no sample
# has a time per output token beyond some microseconds, as "Max Time per Output Token" in the same summary
# says. The TPOT estimate is that of 8 answers one after the other: 40 ms and more.
#
# Seen on 2026-11-30: TPOT estimate 53513864 ns = TTFT estimate = Max latency, Max Time per Output Token 9405 ns.
#
# Needs Python 3.9 to 3.13 with venv on Linux x86-64, and a package index.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check mlcommons-loadgen==6.0.17

cat >test.py <<'PYTHON'
import os, queue, threading, time
import mlperf_loadgen as lg

open("user.conf", "w").close()
settings = lg.TestSettings()
settings.FromConfig("user.conf", "llama3_1-8b", "MultiStream")
settings.scenario = lg.TestScenario.MultiStream
settings.mode = lg.TestMode.PerformanceOnly
settings.min_duration_ms, settings.min_query_count = 1000, 64
settings.performance_sample_count_override = 0
settings.multi_stream_target_latency_percentile = 0.9
asked = queue.Queue()


def answer():
    while True:
        for i in asked.get():
            time.sleep(0.005)
            lg.FirstTokenComplete([lg.QuerySampleResponse(i, 0, 0)])
            lg.QuerySamplesComplete([lg.QuerySampleResponse(i, 0, 0, 5)])  # five tokens


threading.Thread(target=answer, daemon=True).start()
logs = lg.LogSettings()
logs.log_output.outdir = "."
sut = lg.ConstructSUT(lambda samples: asked.put([s.id for s in samples]), lambda: None)
qsl = lg.ConstructQSL(20, 20, lambda _: None, lambda _: None)
lg.StartTestWithLogSettings(sut, qsl, settings, logs)
os._exit(0)
PYTHON
venv/bin/python test.py
number() { sed -n "s/.*$1[^:]*: *//p" mlperf_log_summary.txt | head -1; }
ttft=$(sed -n '/^TTFT/,/^TPOT/p' mlperf_log_summary.txt | sed -n 's/.*percentile estimate: //p')
tpot=$(sed -n '/^TPOT/,$p' mlperf_log_summary.txt | sed -n 's/.*percentile estimate: //p' | head -1)
longest=$(number 'Max Time per Output Token')
echo "estimates: TTFT $ttft ns, TPOT $tpot ns; longest time per output token: $longest ns"
[ "$ttft" = "$tpot" ] && [ "$tpot" -gt $((10 * longest)) ] || { echo 'this has changed' >&2; exit 1; }
