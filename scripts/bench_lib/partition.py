"""Divisible work between unequal hosts: leases, against an even split and the sum of solo rates.

A sample is a wait of a fixed time, so that hosts that share two cores do not slow each other down:
what is measured is how well the work is divided, not how fast this machine computes. One host
takes 2.7 times as long as the others.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from virtual_hosts_lib.files import home_directory

from .base.bed import ROOT, Bed, run_tool
from .base.errors import BenchError
from .base.measure import measure
from .base.report import table
from .base.rounds import say

HOSTS = 3
SLOWER = 2.7
SECONDS = 0.05
SOLO_SAMPLES = 60
LIMIT_S = 300.0
POLL_S = 0.05
WORKLOAD = "waits"
SCRIPT = "waits.py"
DECLARED = """\
name: waits
summary: Waits for each sample
entry: waits.py
shape: divisible
samples: {file: dataset, count: samples, group: batch}
ranks: {per: node}
parameters:
  dataset: {type: str, default: ""}
  samples: {type: int, default: 300, min: 1}
  batch: {type: int, default: 1, min: 1}
  seconds: {type: str, default: "0.05"}
"""
PROGRAM = """\
import argparse
import json
import os
import sys
import time

import orchestrate_kit as kit

parser = argparse.ArgumentParser()
for name in ("dataset", "samples", "batch", "seconds"):
    parser.add_argument("--" + name, default="")
asked = parser.parse_args()
by_host = dict(word.split("=") for word in asked.seconds.split(","))
seconds = float(by_host[os.environ.get("ORCHESTRATE_NODE", "alone")])
began = None
for group in kit.groups(int(asked.samples), int(asked.batch), asked.dataset):
    began = began or time.monotonic()
    for sample in group:
        time.sleep(seconds)
        kit.complete(sample, {"square": sample.index**2}, seconds)
took = time.monotonic() - (began or time.monotonic())
json.dump({"seconds": took, "samples": int(asked.samples)}, sys.stdout)
"""
NOTE = f"""\
A sample is a wait of {SECONDS * 1000:.0f} ms, on the slow host of {SLOWER} times as much; groups of
one. Solo rates and the even split come from the same worker started over `ssh`, without leases and
without orchestrate, timed by itself from its first sample to its last. Ours is timed from the first
lease to the last output that arrived. Outputs are checked: every sample once, in order, exact.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round, all in samples a second.

    ``survivors``: what the two hosts did from the moment on when a third one's worker was killed.
    """

    fast: float
    slow: float
    even: float
    ours: float
    survivors: float

    @property
    def sum(self) -> float:
        """What the two hosts can do by themselves."""
        return self.fast + self.slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A share of the sum of solo rates in every round, and the least that its median may be."""

    name: str
    values: Sequence[float]
    least: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def word(self) -> str:
        if self.least is None:
            return ""
        return "met" if self.median >= self.least else "MISSED"


@dataclass(slots=True, kw_only=True)
class Partition:
    """The hosts of a bed, with the worker in place."""

    bed: Bed
    samples: int
    workload: Path = field(init=False)

    def __post_init__(self) -> None:
        self.workload = self.bed.folder / WORKLOAD
        self.workload.mkdir()
        (self.workload / "workload.yaml").write_text(DECLARED)
        (self.workload / SCRIPT).write_text(PROGRAM)
        for host in self.bed.names(HOSTS):
            (self.bed.hosts.home(host) / SCRIPT).write_text(PROGRAM)
            kit = ROOT / "workloads" / "orchestrate_kit"
            home = self.bed.hosts.home(host)
            shutil.copytree(kit, home / kit.name, ignore=shutil.ignore_patterns("__pycache__"))

    def rounds(self, count: int) -> Iterator[Round]:
        for number in range(1, count + 1):
            began = time.monotonic()
            yield self._round(number)
            say(f"partition: round {number} of {count}, {time.monotonic() - began:.1f} s")

    def _round(self, number: int) -> Round:
        fast, slow = self.bed.names(2)
        (one,), (other,) = self._alone([fast], SOLO_SAMPLES), self._alone([slow], SOLO_SAMPLES)
        halves = self._alone([fast, slow], self.samples // 2)
        return Round(
            fast=SOLO_SAMPLES / one,
            slow=SOLO_SAMPLES / other,
            even=2 * (self.samples // 2) / max(halves),
            ours=self._ours(f"ours-{number}"),
            survivors=self._survivors(f"killed-{number}"),
        )

    def _seconds(self, host: str) -> float:
        return SECONDS * (SLOWER if host == self.bed.names(2)[1] else 1.0)

    def _alone(self, hosts: Sequence[str], samples: int) -> list[float]:
        """Seconds that each host takes for ``samples`` of its own, all of them at once."""
        running = [self._start_alone(host, samples) for host in hosts]
        try:
            told = [json.loads(process.communicate(timeout=LIMIT_S)[0]) for process in running]
        except (ValueError, subprocess.TimeoutExpired) as error:
            raise BenchError(f"the worker on {', '.join(hosts)} failed: {error}") from error
        finally:
            for process in running:
                process.kill()
        return [float(each["seconds"]) for each in told]

    def _start_alone(self, host: str, samples: int) -> subprocess.Popen[bytes]:
        home = home_directory(self.bed.hosts.state.options.user)
        words = [self.bed.python, f"{home}/{SCRIPT}", f"--samples={samples}", "--batch=1"]
        words.append(f"--seconds=alone={self._seconds(host)}")
        argv = [*self.bed.ssh(), host, shlex.join(words)]
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)

    def _words(self, run: str, hosts: int) -> list[str]:
        seconds = ",".join(f"{host}={self._seconds(host)}" for host in self.bed.names(hosts))
        cluster = str(self.bed.inventory(hosts))
        words = ["run", "--cluster", cluster, "--workload", str(self.workload), "--run-id", run]
        return [*words, "--json", f"--set=samples={self.samples}", f"--set=seconds={seconds}"]

    def _ours(self, run: str) -> float:
        done = measure([self.bed.orchestrate(*self._words(run, 2))], timeout_s=LIMIT_S)
        result = json.loads(done.output.splitlines()[-1])
        self._check(run, result, "succeeded")
        if result["samples"]["duplicates"]:
            raise BenchError(f"{result['samples']['duplicates']} samples were done twice")
        return float(result["metrics"]["samples_per_s"]["value"])

    def _survivors(self, run: str) -> float:
        """The rate of two hosts after the third one's worker was killed half-way."""
        command = self.bed.orchestrate(*self._words(run, HOSTS))
        running = subprocess.Popen(
            list(command.argv),
            env={**os.environ, **command.env},
            cwd=command.cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            killed_at = self._kill_half_way(run, running)
            out = running.communicate(timeout=LIMIT_S)[0]
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"run {run} did not end") from error
        finally:
            running.kill()
        self._check(run, json.loads(out.splitlines()[-1]), "degraded")
        dead = self.bed.names(HOSTS)[-1]
        times = [t for host, t in self._outputs(run) if host != dead and t > killed_at]
        return (len(times) - 1) / (max(times) - min(times))

    def _kill_half_way(self, run: str, running: subprocess.Popen[bytes]) -> float:
        dead = self.bed.names(HOSTS)[-1]
        deadline = time.monotonic() + LIMIT_S
        while len(list(self._outputs(run))) < self.samples // 2:
            if running.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"run {run} did not get half-way")
            time.sleep(POLL_S)
        run_tool(self.bed.hosts.exec_argv(dead, ["kill", "-9", str(self._pid(run, dead))]))
        return time.time()

    def _pid(self, run: str, host: str) -> int:
        for line in (self._folder(run) / "journal.jsonl").read_text().splitlines():
            event = json.loads(line).get("event", {})
            if event.get("type") == "RankStarted" and event.get("node") == host:
                return int(event["pid"])
        raise BenchError(f"the journal of run {run} names no worker on {host}")

    def _folder(self, run: str) -> Path:
        return Path(self.bed.env["ORCHESTRATE_HOME"]) / "runs" / run

    def _outputs(self, run: str) -> Iterator[tuple[str, float]]:
        """(host, when) of every output so far."""
        for path in (self._folder(run) / "exchange").glob("*/attempt-1/exchange-*.jsonl"):
            for line in path.read_bytes().rpartition(b"\n")[0].splitlines():
                record = json.loads(line)
                if record["type"] == "output":
                    yield path.parent.parent.name, float(record["t"])

    def _check(self, run: str, result: dict[str, Any], status: str) -> None:
        """Raises BenchError unless every sample is there once, in order and exact."""
        lines = (self._folder(run) / "artifacts" / "samples.jsonl").read_text().splitlines()
        expected = [{"index": i, "square": i * i} for i in range(self.samples)]
        if result["status"] != status or [json.loads(line) for line in lines] != expected:
            raise BenchError(f"run {run} is {result['status']}, with {len(lines)} outputs")


def figures(rounds: Sequence[Round]) -> list[Figure]:
    """Everything as a share of what the hosts can do by themselves."""
    return [
        Figure(name="ours", values=[r.ours / r.sum for r in rounds], least=0.97),
        Figure(name="even split", values=[r.even / r.sum for r in rounds]),
        Figure(
            name="survivors of three, one killed half-way",
            values=[r.survivors / r.sum for r in rounds],
            least=0.95,
        ),
    ]


def partition_markdown(machine: dict[str, str], rounds: Sequence[Round]) -> str:
    """The whole report."""
    rates = [
        (name, _spread([getattr(each, field) for each in rounds], "{:.2f}"))
        for name, field in (
            ("fast host alone", "fast"),
            ("slow host alone", "slow"),
            ("sum of the two", "sum"),
            ("ours", "ours"),
            ("even split", "even"),
            ("survivors of three, one killed half-way", "survivors"),
        )
    ]
    shares = [
        (
            figure.name,
            _spread(figure.values, "{:.1%}"),
            f">= {figure.least:.0%}" if figure.least is not None else "",
            figure.word,
        )
        for figure in figures(rounds)
    ]
    parts = [
        table(("what", "value"), list(machine.items())),
        "## Partition: unequal hosts, all in one go",
        NOTE.replace("\n", " ").strip(),
        table(("what", "samples/s (rounds)"), rates),
        table(("share of the sum of solo rates", "measured (rounds)", "target", "verdict"), shares),
    ]
    return "\n\n".join(parts) + "\n"


def _spread(values: Sequence[float], how: str) -> str:
    middle, low, high = (
        how.format(v) for v in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} ({low}..{high})"
