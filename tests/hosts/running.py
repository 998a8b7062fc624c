"""Starting `python -m orchestrator` as people do; what it does to machines is in `processes`.

What all commands import has been imported once before; those of a terminal, in `terminal`, start
from nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.architecture.source import ROOT
from tests.forks import COMMANDS, Fork
from tests.time_limits import SPARE, Deadline, budget, communicate, scaled, slowdown, wait_for_exit

POLL_S = 0.05
# What a run has by itself for steps whose time depends on the machine, in seconds.
SHORT_BUDGETS = {"connect": 30.0, "probe": 30.0, "reach": 20.0, "launch": 30.0, "silence": 10.0}


def wait_until(what: str, holds: Callable[[], object], within_s: float = 30.0) -> float:
    """Seconds until ``holds`` did; fails with ``what`` at the deadline."""
    deadline = Deadline(within_s)
    while not holds():
        assert not deadline.passed, f"not within {deadline}: {what}"
        time.sleep(POLL_S)
    return deadline.spent_s


def budgets(**seconds: float) -> list[str]:
    """Options that set budgets of the run, by name; they are longer on a very slow machine."""
    return [word for name, s in seconds.items() for word in ("--budget", f"{name}={budget(s):g}")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a command ended. ``result`` is its last line of JSON; ``at`` the wall clock."""

    code: int
    result: dict[str, Any]
    err: str
    at: float

    @property
    def states(self) -> dict[str, str]:
        return {node["name"]: node["state"] for node in self.result["nodes"]}


class Job:
    """A run under way: its events and what it says to people, as they come."""

    def __init__(self, run: str, process: Fork | subprocess.Popen[str]) -> None:
        self.run = run
        self.process = process
        self.records: list[dict[str, Any]] = []
        self._err: list[str] = []
        readers = [(process.stdout, self._take), (process.stderr, self._err.append)]
        self._threads = [threading.Thread(target=_drain, args=reader) for reader in readers]
        for thread in self._threads:
            thread.start()

    def _take(self, line: str) -> None:
        self.records.append(json.loads(line))

    def events(self, type: str, **fields: object) -> list[dict[str, Any]]:
        """The events of one type so far whose fields are as given."""
        found = [r["event"] for r in list(self.records) if r["type"] == "event"]
        matching = (e for e in found if e["type"] == type)
        return [e for e in matching if all(e.get(name) == fields[name] for name in fields)]

    def wait_for(self, type: str, count: int = 1, within_s: float = 40.0, **fields: object) -> None:
        """Until ``count`` such events came."""
        what = f"{count} {type} {fields} of {self.run}: {self.err}"
        wait_until(what, lambda: len(self.events(type, **fields)) >= count or self.over, within_s)
        assert len(self.events(type, **fields)) >= count, f"{what}, {self.records[-3:]}"

    def wait_for_line(self, line: str, count: int, within_s: float = 40.0) -> None:
        """Until ``count`` ranks wrote ``line``."""
        self.wait_for("Log", count, within_s, line=line)

    def lines(self) -> dict[str, list[str]]:
        """Every log line that came, by ``node/file``."""
        found: dict[str, list[str]] = {}
        for event in self.events("Log"):
            found.setdefault(f"{event['node']}/{event['file']}", []).append(event["line"])
        return found

    @property
    def over(self) -> bool:
        return self.process.poll() is not None and not any(t.is_alive() for t in self._threads)

    @property
    def err(self) -> str:
        return "".join(self._err)

    def interrupt(self, number: int = signal.SIGINT) -> float:
        """Send a signal; the monotonic clock before that."""
        at = time.monotonic()
        self.process.send_signal(number)
        return at

    def end(self, within_s: float = 60.0) -> Ending:
        """Wait for the end and read the one result."""
        code = wait_for_exit(self.process, within_s)
        at = time.time()
        for thread in self._threads:
            thread.join(scaled(5))
        results = [record for record in self.records if record["type"] == "result"]
        assert results == self.records[-1:], self.err
        assert results[0]["exit_code"] == code, self.err
        return Ending(code=code, result=results[0], err=self.err, at=at)

    def abandon(self) -> None:
        """KILL the coordinator, if it is still there, and wait for it."""
        self.process.kill()
        wait_for_exit(self.process, 10)
        for thread in self._threads:
            thread.join(scaled(5))


def _drain(stream: IO[str], take: Callable[[str], object]) -> None:
    with stream:
        for line in stream:
            take(line)


class Desk:
    """A project and a home of one's own, from which runs are started."""

    def __init__(self, root: Path, cluster: Path) -> None:
        self.home = root / "home"
        self.project = root / "project"
        self.project.mkdir()
        self.cluster = cluster
        self._count = 0
        self._jobs: list[Job] = []

    def script(self, name: str, text: str) -> str:
        """A file of the project; its name."""
        (self.project / name).write_text(text)
        return name

    @property
    def next_run(self) -> str:
        """The id of the run that ``start`` will make; no other test process has it."""
        return f"{self.project.parent.name}-{os.getpid()}-{self._count + 1}"

    def folder(self, run: str) -> Path:
        return self.home / "runs" / run

    def node(self, run: str) -> Path:
        """What a node of the local transport keeps of ``run``."""
        return self.project.parent / "node" / "node" / "runs" / run

    def log(self, run: str, node: str, file: str) -> bytes:
        return (self.folder(run) / "logs" / node / file).read_bytes()

    def start(
        self,
        *script: str,
        options: Sequence[str] = (),
        launcher: str = "direct",
        env: Mapping[str, str] | None = None,
        probe: bool = False,
    ) -> Job:
        """`orchestrate run --json --follow OPTIONS -- SCRIPT`, with an id of its own.

        ``probe``: with a fabric probe, which takes seconds.
        """
        words = ("--launcher", launcher, *options, "--", *script)
        return self._begin(*words, env=env, probe=probe)

    def start_workload(
        self,
        folder: Path,
        *settings: str,
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        probe: bool = False,
    ) -> Job:
        """`orchestrate run --json --follow --workload FOLDER --set SETTING...`, likewise."""
        sets = [word for setting in settings for word in ("--set", setting)]
        return self._begin("--workload", str(folder), *sets, *options, env=env, probe=probe)

    def _begin(self, *words: str, env: Mapping[str, str] | None, probe: bool) -> Job:
        run = self.next_run
        fixed = ["--cluster", str(self.cluster), "--run-id", run, "--json", "--follow"]
        fixed += [] if probe else ["--no-fabric-probe"]
        fixed += budgets(**SHORT_BUDGETS) if slowdown() > SPARE else []
        return self.follow(run, "run", *fixed, *words, env=env)

    def follow(self, run: str, *words: str, env: Mapping[str, str] | None = None) -> Job:
        """`orchestrate WORDS`, which give JSON lines of ``run``."""
        self._count += run == self.next_run
        job = Job(run, self.popen(*words, env=env))
        self._jobs.append(job)
        return job

    def resume(self, run: str, *options: str, env: Mapping[str, str] | None = None) -> Job:
        """`orchestrate resume RUN --json --follow OPTIONS`."""
        return self.follow(run, "resume", run, "--json", "--follow", *options, env=env)

    def run(self, *script: str, within_s: float = 90.0, **how: Any) -> tuple[Job, Ending]:
        """``start``, and wait for the end."""
        job = self.start(*script, **how)
        return job, job.end(within_s)

    def command(self, *words: str, within_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Any other command, to its end."""
        process = self.popen(*words)
        try:
            out, err = communicate(process, within_s)
        except BaseException:
            process.kill()
            process.communicate()
            raise
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def close(self) -> None:
        for job in self._jobs:
            job.abandon()

    def environment(self) -> dict[str, str]:
        """What commands are started with."""
        home = {"ORCHESTRATE_HOME": str(self.home), "PYTHONPATH": str(ROOT)}
        return {**os.environ, **home}

    def popen(
        self, *words: str, env: Mapping[str, str] | None = None
    ) -> Fork | subprocess.Popen[str]:
        """`orchestrate WORDS`, under way; whoever calls ends it. With a PYTHONPATH in ``env``
        it has an interpreter of its own, for what that finds there as it starts.
        """
        variables = {**self.environment(), **(env or {})}
        argv = ["-m", "orchestrator", *words]
        if "PYTHONPATH" not in (env or {}):
            return COMMANDS.start(argv, self.project, variables)
        return subprocess.Popen(
            [sys.executable, "-P", *argv],
            cwd=self.project,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@contextmanager
def open_desk(root: Path, cluster: Path) -> Iterator[Desk]:
    """A desk whose coordinators are ended in any case."""
    desk = Desk(root, cluster)
    try:
        yield desk
    finally:
        desk.close()


# A rank for tests of the life of a run; torch would only cost time.
RANK = """
import os, signal, sys, time

rank = int(os.environ["RANK"])
mode = sys.argv[1]
go = os.path.expanduser("~/go-" + os.environ["ORCHESTRATE_RUN_ID"])


def stay(seconds=600):
    print("ready", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.05)


if mode == "stubborn":
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: os.write(1, b"told\\n"))
    stay()
elif mode == "count":
    for number in range(int(sys.argv[2])):
        print(f"line {number} of rank {rank}", flush=True)
        time.sleep(0.01)
elif mode == "stay":
    stay(float(sys.argv[2]) if len(sys.argv) > 2 else 600)
elif mode == "wait":
    print(*sys.argv[2:], "ready", sep="\\n", flush=True)
    while not os.path.exists(go):
        time.sleep(0.05)
elif mode == "talk":
    number = 0
    while not os.path.exists(go):
        print(f"line {number} of rank {rank}", flush=True)
        number += 1
        time.sleep(0.01)
elif rank != 1:
    stay()
elif mode == "last-words":
    print("all is well", flush=True)
    print("the last line of rank 1", file=sys.stderr, flush=True)
    stay()
elif mode == "exit":
    print("giving up with 3", file=sys.stderr)
    sys.exit(3)
elif mode == "raise":
    raise RuntimeError("no such luck")
elif mode == "segfault":
    print("about to fault", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
"""
