"""What a further node costs the coordinator: over real sshd, and of whole runs on models."""

from __future__ import annotations

import json
import math
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression, median

from .base.bed import ROOT, Bed
from .base.errors import BenchError
from .base.measure import Command, Expected, measure
from .base.report import table
from .base.rounds import say, say_round
from .base.stats import rotated

PROGRAM = ROOT / "scripts/bench_lib/programs/memory_run.py"
HOSTS = 32  # virtual hosts; larger sizes have several names and connections for each
SSH_LIMIT_S, MODELS_LIMIT_S = 300.0, 900.0
COUNTED = ("connect to launch", "watch")
LARGE, LIMIT_MS, LIMIT_MB = 1000, 6.0, 0.7
LIMIT_GROWTH = 1.1
MB = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class SshCost:
    """One command on ``nodes`` connections: seconds. ``user_s`` of the client's processor time is
    its own; what it spends in the kernel delivers packets to the hosts, which are on this machine.
    """

    command: str
    nodes: int
    wall_s: float
    cpu_s: float
    user_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCost:
    """A whole run on ``nodes`` models: processor seconds of the coordinator by phase, and the bytes
    by which the process grew, models and all.
    """

    nodes: int
    phases: Mapping[str, float]
    peak_bytes: int

    @property
    def node_ms(self) -> float:
        """Of what the target is about: the way to the launch, and the watch."""
        return sum(self.phases[phase] for phase in COUNTED) / self.nodes * 1e3

    @property
    def node_mb(self) -> float:
        return self.peak_bytes / self.nodes / MB

    @property
    def met(self) -> bool:
        return self.nodes != LARGE or (self.node_ms <= LIMIT_MS and self.node_mb <= LIMIT_MB)

    @property
    def verdict(self) -> str:
        """Of more nodes is only asked that the run comes to its end, and a figure says it did."""
        if self.nodes < LARGE:
            return ""
        if self.nodes > LARGE:
            return "comes to its end: met"
        met = "met" if self.met else "MISSED"
        return f"at most {LIMIT_MS:g} ms, {LIMIT_MB:g} MB: {met}"


# ---- real connections --------------------------------------------------------------------------


def ssh_costs(bed: Bed, sizes: Sequence[int], repeats: int) -> Iterator[SshCost]:
    """`exec` and `probe` with a new connection to each name; one round warms up."""
    for number in range(repeats + 1):
        began = time.monotonic()
        for nodes in rotated(sizes, number):
            for cost in _commands_on(bed, nodes):
                say(f"{cost.command}, {nodes} nodes: {cost.cpu_s:.2f} s of CPU")
                if number:
                    yield cost
        say_round("real connections", number, repeats, time.monotonic() - began)


def _commands_on(bed: Bed, nodes: int) -> Iterator[SshCost]:
    cluster = str(_inventory(bed, nodes))
    facts = Expected(pattern=re.compile(rb'"node": "([\w-]+)", .*"facts": \{'), count=nodes)
    true = bed.orchestrate("exec", "--cluster", cluster, "--", "true")
    probe = bed.orchestrate("probe", "--json", "--cluster", cluster)
    for name, command, expected in (("exec", true, None), ("probe", probe, facts)):
        done = measure([command], timeout_s=SSH_LIMIT_S, expected=expected)
        yield SshCost(
            command=name,
            nodes=nodes,
            wall_s=done.wall_s,
            cpu_s=done.cpu_s,
            user_s=done.user_s,
        )


def _inventory(bed: Bed, nodes: int) -> Path:
    """``nodes`` names, dealt to the virtual hosts in turn."""
    path = bed.folder / f"scale-{nodes}.yaml"
    head, _, _ = bed.hosts.inventory.read_text().partition("nodes:")
    hosts = bed.names(HOSTS)
    names = [
        f"  - {{name: n{number:03d}, ssh: {hosts[number % HOSTS]}}}\n" for number in range(nodes)
    ]
    path.write_text(f"{head}nodes:\n{''.join(names)}")
    return path


def further_node_ms(found: Mapping[int, float]) -> float:
    """The slope of a line through (nodes, seconds), in ms."""
    return linear_regression(list(found), list(found.values())).slope * 1e3


def growth_of(found: Mapping[int, float]) -> float:
    """What a further node costs between the two largest sizes, by what one costs between the
    smallest and the second largest: 1 = linear. Needs three sizes.
    """
    *_, small, large = sizes = sorted(found)
    low = sizes[0]
    before = (found[small] - found[low]) / (small - low)
    return (found[large] - found[small]) / (large - small) / before


# ---- models ------------------------------------------------------------------------------------


def run_costs(sizes: Sequence[int], repeats: int) -> Iterator[RunCost]:
    """Whole runs, each in a process of its own; the sizes take turns."""
    for number in range(1, repeats + 1):
        began = time.monotonic()
        for nodes in rotated(sizes, number):
            cost = _run_models(nodes)
            say(f"{nodes} models: {cost.node_ms:.2f} ms and {cost.node_mb:.3f} MB a node")
            yield cost
        say_round("in memory", number, repeats, time.monotonic() - began)


def _run_models(nodes: int) -> RunCost:
    command = Command(argv=[sys.executable, "-P", str(PROGRAM), str(nodes)], cwd=ROOT)
    lines = measure([command], timeout_s=MODELS_LIMIT_S).output.splitlines()
    try:
        told = json.loads(lines[-1])
        return RunCost(nodes=nodes, phases=told["own_s"], peak_bytes=told["bytes"])
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise BenchError(f"{PROGRAM.name} printed no figures: {lines[-1:]}") from error


# ---- what it comes to --------------------------------------------------------------------------


def middle_costs(found: Sequence[SshCost], command: str) -> dict[int, float]:
    """Median user seconds of ``command`` by number of nodes."""
    sizes = sorted({cost.nodes for cost in found if cost.command == command})
    return {
        nodes: median(c.user_s for c in found if (c.command, c.nodes) == (command, nodes))
        for nodes in sizes
    }


def middle_runs(found: Sequence[RunCost]) -> list[RunCost]:
    """The run of each size with the median cost."""
    runs: list[RunCost] = []
    for nodes in sorted({cost.nodes for cost in found}):
        own = sorted((c for c in found if c.nodes == nodes), key=lambda cost: cost.node_ms)
        runs.append(own[len(own) // 2])
    return runs


def fitted_power(runs: Sequence[RunCost]) -> float:
    """The whole cost is in proportion to nodes to this power."""
    sizes = [math.log(run.nodes) for run in runs]
    return linear_regression(sizes, [math.log(run.node_ms * run.nodes) for run in runs]).slope


def all_met(ssh: Sequence[SshCost], runs: Sequence[RunCost]) -> bool:
    """Whether every target that could be judged is met."""
    middles = [middle_costs(ssh, name) for name in _commands(ssh)]
    linear = all(growth_of(found) <= LIMIT_GROWTH for found in middles if len(found) > 2)
    return linear and all(run.met for run in middle_runs(runs))


def _commands(ssh: Sequence[SshCost]) -> list[str]:
    return list(dict.fromkeys(cost.command for cost in ssh))


def scale_markdown(ssh: Sequence[SshCost], runs: Sequence[RunCost]) -> str:
    """A table for each kind that was measured, with its growth."""
    parts = [_ssh_text(ssh, name) for name in _commands(ssh)]
    return "\n".join([*parts, *([_runs_text(middle_runs(runs))] if runs else [])])


def _ssh_text(ssh: Sequence[SshCost], command: str) -> str:
    found = middle_costs(ssh, command)
    rows = []
    for nodes, user_s in found.items():
        own = [c for c in ssh if (c.command, c.nodes) == (command, nodes)]
        walls, cpus, users = zip(*((c.wall_s, c.cpu_s, c.user_s) for c in own), strict=True)
        spread = f"{user_s:.3f} ({min(users):.3f}..{max(users):.3f})"
        cpu = f"{median(cpus):.3f}"
        row = (str(nodes), f"{median(walls):.2f}", cpu, spread, f"{user_s / nodes * 1e3:.2f} ms")
        rows.append(row)
    heads = ("real connections", "wall s", "client CPU s", "of it user s", "user time a node")
    text = f"### `{command}` over real sshd\n\n{table(heads, rows)}\n"
    if len(found) > 1:
        text += f"\nA further node costs {further_node_ms(found):.2f} ms.\n"
    if len(found) > 2:
        growth = growth_of(found)
        verdict = "met" if growth <= LIMIT_GROWTH else "MISSED"
        text += f"Growth {growth:.2f} x linear; target: at most {LIMIT_GROWTH:g} x: {verdict}.\n"
    return text


def _runs_text(runs: Sequence[RunCost]) -> str:
    rows = [
        (
            f"{run.nodes:,}",
            f"{run.node_ms:.2f} ms",
            *(f"{seconds / run.nodes * 1e3:.2f} ms" for seconds in run.phases.values()),
            f"{run.node_mb:.3f} MB",
            run.verdict,
        )
        for run in runs
    ]
    heads = ("nodes in memory", "a node", *runs[0].phases, "memory", "target")
    text = f"### Whole runs with a watch of 60 s, in memory\n\n{table(heads, rows)}\n"
    if len(runs) > 1:
        text += f"\nA run costs in proportion to nodes^{fitted_power(runs):.2f}.\n"
    return text
