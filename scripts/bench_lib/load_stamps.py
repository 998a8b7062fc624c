"""Which load client is right: each beside a server that writes down when it really did what.

The server draws its delays and stamps each request that it has read and each token that it writes.
From its stamps come, by a client's own definitions, the latencies that a client without any delay
would see; what the client says beyond them is its own error, and that of the machine.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from .base.bed import ROOT
from .base.errors import BenchError
from .base.line_program import LineProgram, line_program
from .base.report import table
from .base.rounds import say
from .load_client import CLIENT, CLIENT_CORE, SERVER_CORE, TOKENIZER

sys.path.insert(0, str(ROOT / "workloads"))

from loadtest.base.arrivals import CONSTANT
from loadtest.base.job import CHAT, Target
from loadtest.base.records import RequestRecord, read_records
from loadtest.judge.definitions import DEFINITIONS
from loadtest.judge.summary import Objectives, Summary
from loadtest.peers.comparison import own_figures
from loadtest.peers.tools import TOOLS, PeerError, PeerLoad

SERVER = Path(__file__).with_name("programs") / "stamped_server.py"
DELAYS = {"first_ms": [10.0, 30.0], "gap_ms": [4.0, 6.0]}
TOKENS, WORDS, SEED = 32, 32, 1
RUN_S = 900.0
OURS = "ours"
CLIENT_NAME = "client"
LATENCIES = ("ttft", "request_latency", "itl")
STATISTICS = ("mean", "p50", "p90", "p99")
# What is to be met: our error of each figure, as a part of what the server did, or in seconds what
# a request may be sent too late.
MOST_APART, MOST_APART_S = 0.02, 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class StampRun:
    """A client's round: figures by our names, in seconds, as it says and as the server did."""

    client: str
    requests: int
    says: Mapping[str, float]
    did: Mapping[str, float]

    def apart(self, name: str) -> float:
        """How much the client says more, in seconds."""
        return self.says[name] - self.did[name]


@dataclass(frozen=True, slots=True, kw_only=True)
class StampLoad:
    """Requests/s at equal distances, and how many. ``first``: the number in the first prompt."""

    rate: float
    requests: int
    model: str = "trivial"
    tokenizer: str = str(TOKENIZER)
    tokens: int = TOKENS
    ignore_eos: bool = True
    first: int = 0


def measure_stamps(load: StampLoad, rounds: int, peers: Mapping[str, Path]) -> Iterator[StampRun]:
    """Ours beside each of ``peers`` (the environments of AIPerf and vLLM, by name), in each round.

    Raises :class:`BenchError`.
    """
    with tempfile.TemporaryDirectory(prefix="load-stamps-") as folder, _server() as server:
        room = Path(folder)
        clients: list[Callable[[], StampRun]] = [lambda: _ours(server, load, room)]
        clients += [
            lambda name=name, venv=venv: _peer(server, load, room, name, venv)  # type: ignore[misc]
            for name, venv in peers.items()
        ]
        for number in range(rounds):
            say(f"round {number + 1} of {rounds}")
            for client in clients if number % 2 == 0 else reversed(clients):
                yield client()


class _Server:
    """The stamping server."""

    def __init__(self, program: LineProgram) -> None:
        self._program = program
        self.port = int(program.say(json.dumps(DELAYS)))

    def take(self, room: Path) -> list[RequestRecord]:
        """What it did since the last time."""
        path = Path(self._program.say(str(room / "stamps.jsonl")))
        with path.open(encoding="utf-8") as file:
            return list(read_records(file, path.name))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextlib.contextmanager
def _server() -> Iterator[_Server]:
    with line_program(SERVER, SERVER_CORE, "the stamping server") as program:
        yield _Server(program)


def _ours(server: _Server, load: StampLoad, room: Path) -> StampRun:
    """By AIPerf's definitions (as vLLM's but for the ITL)."""
    server.take(room)
    records = send_ours(server.url, load, room)
    return _outcome(OURS, "aiperf", figures(records, "aiperf"), server.take(room), load)


def _peer(server: _Server, load: StampLoad, room: Path, name: str, venv: Path) -> StampRun:
    server.take(room)
    says = send_peers(server.url, load, room, name, venv)
    return _outcome(name, TOOLS[name].definition, says, server.take(room), load)


def send_ours(url: str, load: StampLoad, room: Path) -> list[RequestRecord]:
    """What the sending process of the load test wrote down."""
    record = room / "requests.jsonl"
    record.unlink(missing_ok=True)
    job = {
        "targets": [{"url": url, "model": load.model, "api": CHAT}],
        "asks": [{"text": " ".join(["word"] * WORDS)}],
        "load": {
            "spacing": CONSTANT,
            "rate": load.rate,
            "final_rate": load.rate,
            "duration_s": load.requests / load.rate,
        },
        "output_tokens": load.tokens,
        "ignore_eos": load.ignore_eos,
        "unique": True,
        "first": load.first,
        "record": str(record),
    }
    argv = [sys.executable, str(CLIENT / "sender_process.py")]
    _run(argv, f"{json.dumps(job)}\n{time.monotonic() + 2.0!r}\n")
    with record.open(encoding="utf-8") as file:
        return list(read_records(file, record.name))


def send_peers(url: str, load: StampLoad, room: Path, name: str, venv: Path) -> Mapping[str, float]:
    """What a tool says, asked as a cross-check of the load test asks it."""
    tool, folder = TOOLS[name], room / name
    folder.mkdir(exist_ok=True)
    asked = PeerLoad(
        target=Target(url=url, model=load.model),
        requests=load.requests,
        rate=load.rate,
        concurrency=0,
        arrival=CONSTANT,
        burstiness=1.0,
        output_tokens=load.tokens,
        ignore_eos=load.ignore_eos,
        seed=SEED,
        processes=1,
        tokenizer=load.tokenizer,
        folder=folder,
    )
    text = " ".join(["word"] * WORDS)
    numbers = range(load.first, load.first + load.requests)
    lines = (json.dumps({tool.key: f"{number:06d} {text}"}) for number in numbers)
    asked.prompts.write_text("".join(f"{line}\n" for line in lines))
    _run([str(venv / "bin" / tool.program), *tool.argv(asked)], "")
    try:
        theirs = tool.read(json.loads((folder / tool.result).read_text()))
    except (OSError, ValueError, PeerError) as error:
        raise BenchError(f"{name} left no result: {error}") from error
    if theirs.completed != load.requests:
        raise BenchError(f"{name} completed {theirs.completed} of {load.requests} requests")
    return theirs.figures


def _outcome(
    client: str,
    definition: str,
    says: Mapping[str, float],
    did: Sequence[RequestRecord],
    load: StampLoad,
) -> StampRun:
    """A tool may send requests of its own before the load: the server's last ones count."""
    if len(did) < load.requests:
        raise BenchError(f"{client}: {len(did)} of {load.requests} requests were answered")
    return StampRun(
        client=client,
        requests=load.requests,
        says=says,
        did=figures(did[-load.requests :], definition),
    )


def figures(records: Sequence[RequestRecord], definition: str) -> dict[str, float]:
    """By a tool's definitions, in seconds and per second, by our names."""
    summary = Summary(DEFINITIONS[definition], Objectives())
    for record in records:
        summary.add(CLIENT_NAME, record)
    return dict(own_figures(summary))


def _run(argv: Sequence[str], words: str) -> None:
    process = subprocess.Popen(
        ["taskset", "-c", CLIENT_CORE, *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(words)
        process.stdin.flush()  # it stays open: its end would be that of our client
        assert process.stdout is not None
        out = process.stdout.read()
        process.communicate(timeout=RUN_S)
    finally:
        process.kill()
    if process.returncode:
        raise BenchError(f"{argv[0]} ended with status {process.returncode}: {out[-500:]}")


def stamps_met(runs: Sequence[StampRun]) -> bool:
    """Whether ours is near what the server did in each figure, over all rounds."""
    ours = [run for run in runs if run.client == OURS]
    return bool(ours) and all(_is_near(ours, name) for name in _names(ours))


def _is_near(runs: Sequence[StampRun], name: str) -> bool:
    did = median(run.did[name] for run in runs)
    return abs(median(run.apart(name) for run in runs)) <= max(MOST_APART * did, MOST_APART_S)


def _names(runs: Sequence[StampRun]) -> list[str]:
    wanted = [f"{latency}_{statistic}" for latency in LATENCIES for statistic in STATISTICS]
    return [name for name in wanted if all(name in run.says for run in runs)]


def stamps_markdown(runs: Sequence[StampRun]) -> str:
    """A line for each figure: what the server did, and each client's error in each round."""
    clients = list(dict.fromkeys(run.client for run in runs))
    headings = ("figure", *(f"{name}: server, client too high by" for name in clients))
    rows = []
    for name in _names(runs):
        cells = [_cell([run for run in runs if run.client == each], name) for each in clients]
        rows.append((name.replace("_", " "), *cells))
    return f"{table(headings, rows)}\n"


def _cell(runs: Sequence[StampRun], name: str) -> str:
    did = median(run.did[name] for run in runs)
    share = median(run.apart(name) for run in runs) / did
    errors = ", ".join(f"{run.apart(name) * 1e3:+.2f}" for run in runs)
    return f"{did * 1e3:.2f} ms: {errors} ({share:+.1%})"
