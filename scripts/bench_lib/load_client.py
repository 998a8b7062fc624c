"""What a load client can do on one core: ours beside AIPerf, against the same trivial server.

Client and server have a core each. The server streams answers without computing any, so that what
limits the requests per second is the client. Rounds are interleaved, in turned order.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .base.bed import ROOT, run_tool
from .base.errors import BenchError
from .base.line_program import line_program
from .base.report import table
from .base.rounds import say

CLIENT = ROOT / "workloads" / "loadtest" / "client"
# One that needs no download, for prompts of a length; the server counts the tokens.
TOKENIZER = ROOT / "workloads" / "finetune" / "model" / "tiny"
AIPERF = "aiperf==0.13.0"
STREAMS, TOKENS, WORDS = 64, 16, 32
SERVER_CORE, CLIENT_CORE = "0", "1"
# What is to be met: streamed requests per second of a core, and beside AIPerf.
LEAST_RATE, MOST_MEMORY = 2000.0, 0.5
OURS, LEAST_RATIO = "ours", {"AIPerf": 2.0, "vLLM": 3.0}
PIP_S, RUN_S = 1800.0, 3600.0
LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientRun:
    """One client's round. ``rate``: streamed requests per second; ``peak_mib``: memory of all its
    processes together, shared pages counted once.
    """

    client: str
    requests: int
    rate: float
    peak_mib: float


def measure_clients(
    requests: int, peer_requests: int, rounds: int, aiperf: Path | None, vllm: Path | None
) -> Iterator[ClientRun]:
    """Each client in each round, vLLM where it is given. Raises :class:`BenchError`."""
    with tempfile.TemporaryDirectory(prefix="load-client-") as folder:
        venv = _aiperf_environment(aiperf, Path(folder) / "venv")
        with _trivial_server() as port:
            clients: list[Callable[[], ClientRun]] = [
                lambda: _ours(port, requests, Path(folder)),
                lambda: _aiperf(port, peer_requests, venv, Path(folder)),
            ]
            if vllm is not None:
                clients.append(lambda: _vllm(port, peer_requests, vllm.resolve(), Path(folder)))
            for number in range(rounds):
                say(f"round {number + 1} of {rounds}")
                for client in clients if number % 2 == 0 else reversed(clients):
                    yield client()


def _aiperf_environment(given: Path | None, fresh: Path) -> Path:
    if given is not None:
        run_tool([str(given / "bin" / "aiperf"), "--version"])
        return given.resolve()
    say("making an environment for AIPerf")
    run_tool([sys.executable, "-m", "venv", str(fresh)], timeout_s=PIP_S)
    pip = [str(fresh / "bin" / "python"), "-m", "pip", "install", "--quiet", AIPERF]
    run_tool(pip, timeout_s=PIP_S)
    return fresh


@contextlib.contextmanager
def _trivial_server() -> Iterator[int]:
    """Its port."""
    with line_program(CLIENT / "trivial_server.py", SERVER_CORE, "the trivial server") as program:
        port = program.say("{}")
        if not port.isdigit():
            raise BenchError("the trivial server did not start")
        yield int(port)


def _ours(port: int, requests: int, folder: Path) -> ClientRun:
    """The sending process of the load test, which writes down every request."""
    record = folder / "requests.jsonl"
    record.unlink(missing_ok=True)
    url = f"http://127.0.0.1:{port}/v1"
    job = {
        "targets": [{"url": url, "model": "trivial", "api": "chat"}],
        "asks": [{"text": " ".join(["word"] * WORDS)}],
        "load": None,
        "output_tokens": TOKENS,
        "ignore_eos": True,
        "unique": True,
        "concurrency": STREAMS,
        "most_requests": requests,
        "record": str(record),
    }
    argv = [sys.executable, str(CLIENT / "sender_process.py")]
    words = f"{json.dumps(job)}\n{time.monotonic() + 1.0!r}\n"
    out, peak_mib = _run(argv, words)
    last = json.loads(out.splitlines()[-1])
    if last["completed"] != requests:
        raise BenchError(f"our client completed {last['completed']} of {requests} requests")
    return ClientRun(client=OURS, requests=requests, rate=requests / last["at"], peak_mib=peak_mib)


def _aiperf(port: int, requests: int, venv: Path, folder: Path) -> ClientRun:
    artifacts = folder / "aiperf"
    options = {
        "--model": "trivial",
        "--url": f"http://127.0.0.1:{port}",
        "--endpoint-type": "chat",
        "--concurrency": STREAMS,
        "--request-count": requests,
        "--tokenizer": TOKENIZER,
        "--isl": WORDS,
        "--osl": TOKENS,
        "--ui": "none",
        "--workers-max": 1,
        "--artifact-dir": artifacts,
    }
    words = [str(word) for pair in options.items() for word in pair]
    argv = [str(venv / "bin" / "aiperf"), "profile", "--streaming", "--use-server-token-count"]
    _, peak_mib = _run([*argv, *words], "")
    try:
        found = json.loads((artifacts / "profile_export_aiperf.json").read_text())
        count, rate = found["request_count"]["avg"], found["request_throughput"]["avg"]
    except (OSError, ValueError, KeyError) as error:
        raise BenchError(f"AIPerf left no result: {error!r}") from error
    if count != requests:
        raise BenchError(f"AIPerf completed {count} of {requests} requests")
    return ClientRun(client="AIPerf", requests=requests, rate=rate, peak_mib=peak_mib)


def _vllm(port: int, requests: int, venv: Path, folder: Path) -> ClientRun:
    """`vllm bench serve`, with as many streams and words as the others."""
    result = "vllm.json"
    options = {
        "--backend": "openai-chat",
        "--base-url": f"http://127.0.0.1:{port}",
        "--endpoint": "/v1/chat/completions",
        "--model": "trivial",
        "--tokenizer": TOKENIZER,
        "--dataset-name": "random",
        "--random-input-len": WORDS,
        "--random-output-len": TOKENS,
        "--num-prompts": requests,
        "--max-concurrency": STREAMS,
        "--ready-check-timeout-sec": 0,
        "--result-dir": folder,
        "--result-filename": result,
    }
    words = [str(word) for pair in options.items() for word in pair]
    argv = [str(venv / "bin" / "vllm"), "bench", "serve", *words]
    _, peak_mib = _run([*argv, "--disable-tqdm", "--save-result"], "")
    try:
        found = json.loads((folder / result).read_text())
        count, rate = found["completed"], found["request_throughput"]
    except (OSError, ValueError, KeyError) as error:
        raise BenchError(f"vLLM left no result: {error!r}") from error
    if count != requests:
        raise BenchError(f"vLLM completed {count} of {requests} requests")
    return ClientRun(client="vLLM", requests=requests, rate=rate, peak_mib=peak_mib)


def _run(argv: Sequence[str], words: str) -> tuple[str, float]:
    """(standard output, peak memory in MiB) of a client that has one core for itself."""
    process = subprocess.Popen(
        ["taskset", "-c", CLIENT_CORE, *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    watch = _MemoryWatch(process.pid)
    watch.start()
    try:
        assert process.stdin is not None
        process.stdin.write(words)
        process.stdin.flush()  # it stays open: its end would be the client's
        assert process.stdout is not None
        out = process.stdout.read()
        _, err = process.communicate(timeout=RUN_S)
    finally:
        process.kill()
        watch.finish()
    if process.returncode:
        raise BenchError(f"{argv[0]} ended with status {process.returncode}: {(err or out)[-500:]}")
    return out, watch.peak_kib / 1024


class _MemoryWatch(threading.Thread):
    """The proportional set size of a process and all below it, now and then."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid, self._over = pid, threading.Event()
        self.peak_kib = 0

    def run(self) -> None:
        while not self._over.wait(LOOK_S):
            self.peak_kib = max(self.peak_kib, sum(map(_pss_kib, _family(self._pid))))

    def finish(self) -> None:
        self._over.set()
        self.join()


def _family(pid: int) -> list[int]:
    """The process and its descendants."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found


def _pss_kib(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        return int(text.partition("\nPss:")[2].split()[0])
    return 0


def client_figures(runs: Sequence[ClientRun]) -> dict[str, tuple[float, float]]:
    """The median rate and the highest memory of each client."""
    names = dict.fromkeys(run.client for run in runs)
    return {
        name: (
            median(run.rate for run in runs if run.client == name),
            max(run.peak_mib for run in runs if run.client == name),
        )
        for name in names
    }


def clients_met(runs: Sequence[ClientRun]) -> bool:
    """Whether our client meets all that is asked of it."""
    peers = client_figures(runs)
    rate, memory = peers.pop(OURS)
    return rate >= LEAST_RATE and all(
        rate >= LEAST_RATIO[name] * peer_rate and memory <= MOST_MEMORY * peer_memory
        for name, (peer_rate, peer_memory) in peers.items()
    )


def clients_markdown(machine: dict[str, str], runs: Sequence[ClientRun]) -> str:
    """The whole report."""
    figures = client_figures(runs)
    ours, memory = figures[OURS]
    rows = [
        (name, _rounds(runs, name), f"{rate:,.0f}", f"{peak:,.0f} MiB", _requests(runs, name))
        for name, (rate, peak) in figures.items()
    ]
    headings = ("client", "requests/s, each round", "median", "peak memory", "requests a round")
    beside = "".join(
        f"Ours by {name}: {ours / rate:.1f}x the rate (target: {LEAST_RATIO[name]:g}x), "
        f"{memory / peak:.3f}x the memory (at most {MOST_MEMORY:g}x).\n"
        for name, (rate, peak) in figures.items()
        if name != OURS
    )
    return (
        f"{table(('what', 'value'), list(machine.items()))}\n\n{table(headings, rows)}\n\n"
        f"Target: at least {LEAST_RATE:,.0f} requests/s.\n{beside}"
    )


def _rounds(runs: Sequence[ClientRun], name: str) -> str:
    return ", ".join(f"{run.rate:,.0f}" for run in runs if run.client == name)


def _requests(runs: Sequence[ClientRun], name: str) -> str:
    return f"{next(run.requests for run in runs if run.client == name):,}"
