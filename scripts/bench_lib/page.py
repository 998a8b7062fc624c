"""The web page: first paint with a long history, and what readers cost a live run."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from .base.errors import BenchError
from .base.report import table
from .history import fill_history

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = Path(__file__).parent / "programs" / "report_steps.py"
FIGURES = 50
PAINT_LIMIT_S, CPU_LIMIT, STEPS_LIMIT = 1.0, 0.05, 0.97
READERS, SILENT = 200, 20
START_S, SETTLE_S = 60.0, 5.0
WINDOWS = 4  # alternately without and with readers
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageRow:
    """A figure and its limit; ``at_least``: whether the limit is a lower one."""

    what: str
    value: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.at_least else self.value <= self.limit


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """A stretch of time: CPU of both processes as a share of one processor, and steps a second."""

    read: bool
    server: float
    coordinator: float
    steps: float


def page_rows(python: str, *, runs: int, repeats: int, seconds: float) -> Iterator[PageRow]:
    """First paint, then the cost of readers. Raises :class:`BenchError`."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise BenchError("first paint needs chromium")
    with tempfile.TemporaryDirectory(prefix="orchestrate-bench-") as scratch:
        home = Path(scratch, "home")
        home.mkdir()
        fill_history(home / "history.sqlite", runs, FIGURES)
        with _serving(python, home) as (server, address):
            paints = _first_paints(chromium, address, repeats)
            for what, values in paints.items():
                yield PageRow(what=what, value=median(values), limit=PAINT_LIMIT_S, unit="s")
            yield from _reader_rows(python, Path(scratch), server, address, seconds)


def page_markdown(rows: Sequence[PageRow]) -> str:
    """The table."""
    cells = [
        (
            row.what,
            f"{row.value:.3g} {row.unit}".rstrip(),
            f"{'at least' if row.at_least else 'at most'} {row.limit:g} {row.unit}".rstrip(),
            "met" if row.met else "MISSED",
        )
        for row in rows
    ]
    return table(("what", "median", "limit", ""), cells) + "\n"


@contextmanager
def _serving(python: str, home: Path) -> Iterator[tuple[int, str]]:
    """(pid, address) of a server that is up."""
    argv = [python, "-P", "-m", "orchestrator", "serve", "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(argv, env=_environment(home), stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        if not line.startswith("serving "):
            raise BenchError(f"the server did not start: {line}")
        yield process.pid, line.split()[1]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(START_S)


def _first_paints(chromium: str, address: str, repeats: int) -> dict[str, list[float]]:
    """By page: seconds from navigation to the first paint, each in a browser profile of its own."""
    from playwright.sync_api import sync_playwright

    paths = {"first paint, list of runs": "", "first paint, filtered": "?workload=k3&page=9"}
    found: dict[str, list[float]] = {what: [] for what in paths}
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for _ in range(repeats):
            for what, path in paths.items():
                context = browser.new_context()
                page = context.new_page()
                page.goto(address + path)
                found[what].append(_paint_ms(page) / 1000)
                context.close()
        browser.close()
    return found


def _paint_ms(page: Page) -> float:
    """Asked from outside: the page's policy keeps playwright from waiting inside."""
    end = time.monotonic() + START_S
    while (painted := page.evaluate(PAINT)) is None:
        if time.monotonic() > end:
            raise BenchError("nothing was painted")
        time.sleep(0.02)
    return float(painted)


def _reader_rows(
    python: str, scratch: Path, server: int, address: str, seconds: float
) -> Iterator[PageRow]:
    home = scratch / "home"
    with _live_run(python, scratch, home) as (run, coordinator):
        metrics = home / "runs" / run / "metrics.jsonl"
        windows = []
        for number in range(WINDOWS):
            with ExitStack() as stack:
                read = number % 2 == 1
                if read:
                    stack.enter_context(_readers(address, run))
                time.sleep(SETTLE_S)
                windows.append(_measure(server, coordinator, metrics, seconds, read=read))
    without = [window for window in windows if not window.read]
    beside = [window for window in windows if window.read]
    who = f"{READERS} readers and {SILENT} that read nothing"
    server_cpu = median(window.server for window in beside)
    more = median(w.coordinator for w in beside) - median(w.coordinator for w in without)
    steps = median(w.steps for w in beside) / median(w.steps for w in without)
    unit = "of a CPU"
    yield PageRow(what=f"the server, {who}", value=server_cpu, limit=CPU_LIMIT, unit=unit)
    yield PageRow(what="the run's coordinator, more", value=more, limit=CPU_LIMIT, unit=unit)
    yield PageRow(
        what="steps of the run, beside those without readers",
        value=steps,
        limit=STEPS_LIMIT,
        unit="",
        at_least=True,
    )


@contextmanager
def _live_run(python: str, scratch: Path, home: Path) -> Iterator[tuple[str, int]]:
    """(id, pid of the coordinator) of a run of two ranks that report ten steps a second."""
    inventory = {
        "name": "here",
        "defaults": {"transport": "local", "gpus": 0, "python": python, "workdir": str(scratch)},
        "nodes": ["n[1-2]"],
    }
    cluster = scratch / "here.yaml"
    cluster.write_text(json.dumps(inventory))
    run = "live"
    words = ["run", "--cluster", str(cluster), "--run-id", run, "--launcher", "direct"]
    words += ["--no-fabric-probe", "--follow", "--json", "--", str(PROGRAM)]
    argv = [python, "-P", "-m", "orchestrator", *words]
    process = subprocess.Popen(
        argv,
        env=_environment(home),
        cwd=PROGRAM.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(home / "runs" / run / "metrics.jsonl", process)
        identity = json.loads((home / "runs" / run / "coordinator.json").read_text())
        yield run, int(identity["pid"])
    finally:
        stop = [python, "-P", "-m", "orchestrator", "stop", run, "--now"]
        subprocess.run(stop, env=_environment(home), capture_output=True, timeout=120, check=False)
        process.wait(START_S)


def _wait_for(file: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_S
    while not file.exists() or not file.stat().st_size:
        if process.poll() is not None or time.monotonic() > end:
            raise BenchError("the run did not begin to report")
        time.sleep(0.1)


@contextmanager
def _readers(address: str, run: str) -> Iterator[None]:
    """Half of the readers have the list open and half the run; the silent ones, the run."""
    host, _, port = address.removeprefix("http://").rstrip("/").partition(":")
    paths = ["/events", f"/runs/{run}/events"]
    selector, over = selectors.DefaultSelector(), threading.Event()
    received: dict[socket.socket, int] = {}
    with ExitStack() as stack:
        for number in range(READERS + SILENT):
            reads = number < READERS
            link = stack.enter_context(_connect(host, int(port), paths[number % 2 if reads else 1]))
            if reads:
                link.setblocking(False)
                selector.register(link, selectors.EVENT_READ)
                received[link] = 0
        thread = threading.Thread(target=_read_all, args=(selector, received, over))
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        if not all(received.values()):
            raise BenchError(f"{list(received.values()).count(0)} readers received nothing")


def _connect(host: str, port: int, path: str) -> socket.socket:
    link = socket.socket()
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    link.connect((host, port))
    link.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return link


def _read_all(
    selector: selectors.BaseSelector, received: dict[socket.socket, int], over: threading.Event
) -> None:
    while not over.is_set():
        for key, _ in selector.select(0.5):
            assert isinstance(key.fileobj, socket.socket)
            data = key.fileobj.recv(1 << 16)
            received[key.fileobj] += len(data)
            if not data:
                selector.unregister(key.fileobj)


def _measure(
    server: int, coordinator: int, metrics: Path, seconds: float, *, read: bool
) -> _Window:
    pids, size = (server, coordinator), _lines(metrics)
    began, before = time.monotonic(), [_cpu_s(pid) for pid in pids]
    time.sleep(seconds)
    spent = [_cpu_s(pid) - earlier for pid, earlier in zip(pids, before, strict=True)]
    took = time.monotonic() - began
    return _Window(
        read=read,
        server=spent[0] / took,
        coordinator=spent[1] / took,
        steps=(_lines(metrics) - size) / took,
    )


def _lines(file: Path) -> int:
    return file.read_bytes().count(b"\n")


def _cpu_s(pid: int) -> float:
    """Processor time of a process, of user and kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _environment(home: Path) -> dict[str, str]:
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH", ""))))
    return {**os.environ, "ORCHESTRATE_HOME": str(home), "PYTHONPATH": paths}
