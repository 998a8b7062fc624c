"""The process that LoadGen lives in; it ends with whoever started it.

    python program.py FOLDER < commands > events

Standard library and LoadGen alone. One JSON object a line. In come `test` (what to set), `go`,
then `begun` and `answered`, of several samples at once; out go `settings` (as read back), `issue`,
`flush` and `end`. LoadGen calls on the thread that runs the test and takes
answers on any other: that of standard input gives them. Its callbacks must neither wait nor raise.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import sys
import threading
from array import array
from pathlib import Path
from typing import Any

import mlperf_loadgen as lg

CONFIG = "user.conf"
# What is read back and reported: all that decides how a test goes and when it is valid.
READ_BACK = (
    "accuracy_sample_count_override",
    "max_duration_ms",
    "max_query_count",
    "min_duration_ms",
    "min_query_count",
    "multi_stream_samples_per_query",
    "multi_stream_target_latency_percentile",
    "offline_expected_qps",
    "performance_issue_same",
    "performance_issue_unique",
    "performance_sample_count_override",
    "qsl_rng_seed",
    "sample_concatenate_permutation",
    "sample_index_rng_seed",
    "schedule_rng_seed",
    "server_coalesce_queries",
    "server_target_latency_ns",
    "server_target_latency_percentile",
    "server_target_qps",
    "single_stream_target_latency_percentile",
    "tpot_latency",
    "ttft_latency",
    "use_token_latencies",
)


class _Events:
    """Lines to whoever started this, written by a thread of their own."""

    def __init__(self, descriptor: int) -> None:
        self._queue: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._file = os.fdopen(descriptor, "w", encoding="ascii")
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._thread.start()

    def say(self, type: str, **fields: Any) -> None:
        """Never waits."""
        self._queue.put({"type": type, **fields})

    def close(self) -> None:
        """Return when all is written, or nobody reads."""
        self._queue.put(None)
        self._thread.join()

    def _write(self) -> None:
        while (record := self._queue.get()) is not None:
            try:
                self._file.write(json.dumps(record) + "\n")
                self._file.flush()
            except OSError:
                os._exit(1)  # nobody is left to answer


def main() -> None:
    """One test. Raises what LoadGen and broken commands raise."""
    folder = Path(sys.argv[1])
    events = _Events(os.dup(1))
    os.dup2(2, 1)  # what the library may print is no event
    commands = (json.loads(line) for line in sys.stdin)
    test = next(commands)
    settings = _settings(test, folder)
    events.say("settings", values={name: getattr(settings, name) for name in READ_BACK})
    if next(commands)["type"] == "go":
        threading.Thread(target=_answer_all, args=(commands,), daemon=True).start()
        _run(test, settings, folder, events)
        events.say("end")
    events.close()


def _settings(test: dict[str, Any], folder: Path) -> Any:
    """LoadGen's own rules for the benchmark, and over them what the test wants otherwise."""
    settings = lg.TestSettings()
    config = folder / CONFIG
    config.write_text(test["config"])
    # The first call in a process, and only that, brings the rules that LoadGen was built with.
    code = settings.FromConfig(str(config), test["benchmark"], test["scenario"])
    if code:
        raise RuntimeError(f"LoadGen refused its configuration with code {code}")
    settings.scenario = getattr(lg.TestScenario, test["scenario"])
    settings.mode = getattr(lg.TestMode, test["mode"])
    for name, value in test["overrides"].items():
        setattr(settings, name, value)
    return settings


def _run(test: dict[str, Any], settings: Any, folder: Path, events: _Events) -> None:
    def issue(samples: Any) -> None:
        events.say("issue", queries=[(sample.id, sample.index) for sample in samples])

    def flush() -> None:
        events.say("flush")

    def stay(_: Any) -> None:
        """Samples are where the workers get them."""

    logs = lg.LogSettings()
    logs.log_output.outdir = str(folder)
    logs.enable_trace = False
    sut = lg.ConstructSUT(issue, flush)
    qsl = lg.ConstructQSL(test["samples"], test["samples"], stay, stay)
    lg.StartTestWithLogSettings(sut, qsl, settings, logs)
    lg.DestroyQSL(qsl)
    lg.DestroySUT(sut)


def _answer_all(commands: Any) -> None:
    """Until the end of the input: whoever started this is gone then, and the test with it."""
    try:
        for command in commands:
            if command["type"] == "begun":
                lg.FirstTokenComplete([lg.QuerySampleResponse(i, 0, 0) for i in command["ids"]])
            else:
                for answer in command["answers"]:
                    _answer(*answer)
    finally:
        os._exit(1)


def _answer(id: int, tokens: int, content: str) -> None:
    data = array("B", base64.b64decode(content))  # LoadGen copies it before it returns
    address, size = data.buffer_info() if data else (0, 0)
    lg.QuerySamplesComplete([lg.QuerySampleResponse(id, address, size, tokens)])


if __name__ == "__main__":
    main()
    os._exit(0)  # the library has crashed interpreters that were done
