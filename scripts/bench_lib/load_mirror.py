"""What our client and other tools say of the very same streams of a real server.

A mirror stands before the server. One client leads: its requests are passed on, and what comes back
is kept, piece by piece, with its times. Then the others get the same pieces after the same times.
So what a server and a machine do otherwise from one load to the next is the same for all, and what
is left between two clients is the clients'.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from .base.bed import ROOT
from .base.errors import BenchError
from .base.line_program import LineProgram, line_program
from .base.report import table
from .base.rounds import say
from .load_client import SERVER_CORE
from .load_stamps import OURS, STATISTICS, StampLoad, figures, send_ours, send_peers

sys.path.insert(0, str(ROOT / "workloads"))

from loadtest.base.records import RequestRecord, read_records
from loadtest.peers.tools import TOOLS

PROGRAM = Path(__file__).with_name("programs") / "mirror_server.py"
LATENCIES = ("ttft", "tpot", "itl", "request_latency")
RATES = ("requests_per_s", "output_tokens_per_s")
# What is to be met of each figure, in the median of all rounds.
MOST_APART = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorRun:
    """One client's round: ``leads`` = the streams are its own, live. ``says``: figures by each
    definition, in seconds and per second; a tool has one. ``did``: as the mirror wrote.
    """

    round: int
    client: str
    leads: bool
    says: Mapping[str, Mapping[str, float]]
    did: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The real one."""

    host: str
    port: int


def measure_mirrored(
    server: Server, load: StampLoad, rounds: int, peers: Mapping[str, Path]
) -> Iterator[MirrorRun]:
    """Ours and ``peers`` (environments by name) in each round, each the leader in turn.

    Raises :class:`BenchError`.
    """
    clients = [OURS, *peers]
    with tempfile.TemporaryDirectory(prefix="load-mirror-") as folder, _mirror(server) as mirror:
        room = Path(folder)
        for number in range(rounds):
            turn = number % len(clients)
            mirror.forget()
            own = replace(load, first=number * load.requests)
            for client in clients[turn:] + clients[:turn]:
                leads = client == clients[turn]
                say(f"round {number + 1} of {rounds}: {client}{' leads' if leads else ''}")
                says = _send(mirror.url(leads), own, room, client, peers)
                did = mirror.take(leads, room)
                if len(did) < load.requests:
                    raise BenchError(f"{client}: {len(did)} of {load.requests} were answered")
                by = {name: figures(did[-load.requests :], name) for name in says}
                yield MirrorRun(round=number, client=client, leads=leads, says=says, did=by)


def _send(
    url: str, load: StampLoad, room: Path, client: str, peers: Mapping[str, Path]
) -> dict[str, Mapping[str, float]]:
    if client != OURS:
        return {TOOLS[client].definition: send_peers(url, load, room, client, peers[client])}
    records = send_ours(url, load, room)
    failed = [record for record in records if record.failure]
    if failed or len(records) != load.requests:
        what = f"{failed[0].failure}: {failed[0].detail}" if failed else f"{len(records)} requests"
        raise BenchError(f"our client: {what}")
    return {
        name: figures(records, name) for name in dict.fromkeys(TOOLS[p].definition for p in peers)
    }


class _Mirror:
    def __init__(self, program: LineProgram, server: Server) -> None:
        self._program = program
        ports = program.say(json.dumps({"host": server.host, "port": server.port}))
        self._ports = [int(port) for port in ports.split()]

    def url(self, leads: bool) -> str:
        """Where a client sends its requests."""
        return f"http://127.0.0.1:{self._ports[0 if leads else 1]}/v1"

    def forget(self) -> None:
        """The streams that were kept."""
        self._program.say("forget")

    def take(self, leads: bool, room: Path) -> list[RequestRecord]:
        """What it wrote since the last time."""
        path = room / "stamps.jsonl"
        self._program.say(f"{'leader' if leads else 'followers'} {path}")
        with path.open(encoding="utf-8") as file:
            return list(read_records(file, path.name))


@contextlib.contextmanager
def _mirror(server: Server) -> Iterator[_Mirror]:
    with line_program(PROGRAM, SERVER_CORE, "the mirror") as program:
        yield _Mirror(program, server)


def _apart(runs: Sequence[MirrorRun], peer: str, figure: str) -> list[float]:
    """How much ours is above the tool's, a part of it, in each round in which both were."""
    by = TOOLS[peer].definition
    found = {(run.round, run.client): run.says for run in runs}
    return [
        found[number, OURS][by][figure] / found[number, peer][by][figure] - 1
        for number in sorted({run.round for run in runs})
        if {(number, OURS), (number, peer)} <= found.keys()
    ]


def _figures_of(runs: Sequence[MirrorRun], peer: str) -> list[str]:
    wanted = [f"{latency}_{statistic}" for latency in LATENCIES for statistic in STATISTICS]
    said = [run.says[TOOLS[peer].definition] for run in runs if run.client == peer]
    return [name for name in (*RATES, *wanted) if all(name in each for each in said)]


def _peers(runs: Sequence[MirrorRun]) -> list[str]:
    return [name for name in dict.fromkeys(run.client for run in runs) if name != OURS]


def mirror_met(runs: Sequence[MirrorRun]) -> bool:
    """Whether ours is within the bound of each tool in every figure."""
    apart = [_apart(runs, peer, name) for peer in _peers(runs) for name in _figures_of(runs, peer)]
    return bool(apart) and all(each and abs(median(each)) <= MOST_APART for each in apart)


def mirror_markdown(runs: Sequence[MirrorRun]) -> str:
    """A table for each tool: both figures of the same streams, and how far apart they are."""
    return "\n".join(_table_of(runs, peer) for peer in _peers(runs))


def _table_of(runs: Sequence[MirrorRun], peer: str) -> str:
    by, rows = TOOLS[peer].definition, []
    for name in _figures_of(runs, peer):
        apart = _apart(runs, peer, name)
        cells = [
            f"{median(run.says[by][name] for run in runs if run.client == client):.5g}"
            for client in (OURS, peer)
        ]
        each = ", ".join(f"{part:+.1%}" for part in apart)
        rows.append(
            (name.replace("_", " "), *cells, f"{median(apart):+.2%}" if apart else "-", each)
        )
        rows[-1] += tuple(_error(runs, client, by, name) for client in (OURS, peer))
    headings = ("figure", "ours", peer, "ours above", "each round", "our error", f"{peer}'s error")
    title = f"By the definitions of {by}, medians of the rounds, in seconds and per second:"
    return f"{title}\n\n{table(headings, rows)}\n"


def _error(runs: Sequence[MirrorRun], client: str, by: str, name: str) -> str:
    """How much a client says above what the mirror wrote to it."""
    parts = [run.says[by][name] / run.did[by][name] - 1 for run in runs if run.client == client]
    return f"{median(parts):+.2%}"
