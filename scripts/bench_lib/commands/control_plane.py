"""Fan-out, probe, sync, launch and start-up, against the tools that people use today."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from bench_lib.base.bed import Bed, make_bed
from bench_lib.base.command import MET, MISSED, REPEATS, Command, reported
from bench_lib.base.machine import describe
from bench_lib.base.report import Measured, as_json, judged, markdown
from bench_lib.base.rounds import Scenario, only_cases, perform
from bench_lib.control_plane.fan_out import fan_out, kept_fan_out
from bench_lib.control_plane.imports import import_profile, imports
from bench_lib.control_plane.launch import deepspeed_environment, launch
from bench_lib.control_plane.probe import probe
from bench_lib.control_plane.profile import profile
from bench_lib.control_plane.sync import FEW_FILES, MANY_FILES, sync

# Each scenario, and how many hosts it needs.
SCENARIOS = {
    "fan-out": 32,
    "kept-fan-out": 32,
    "probe": 32,
    "sync": 8,
    "sync-many": 8,
    "launch": 8,
    "imports": 2,
}
TREES = {"sync": FEW_FILES, "sync-many": MANY_FILES}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which scenarios, how often, and with what."""
    parser.add_argument(
        "--only", action="append", choices=list(SCENARIOS), help="this scenario; repeatable"
    )
    parser.add_argument(
        "--case", action="append", metavar="NAME", help="only this case of them; repeatable"
    )
    parser.add_argument("--repeats", type=REPEATS, default=5, metavar="N", help="default: 5")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every sample, for machines")
    parser.add_argument(
        "--python",
        default=sys.executable,
        metavar="PROGRAM",
        help="for ours, torchrun and DeepSpeed; needs the runtime's packages and torch"
        " (default: this one)",
    )
    parser.add_argument(
        "--deepspeed", type=Path, metavar="VENV", help="default: a temporary one, with pip"
    )
    parser.add_argument(
        "--profiles", type=Path, metavar="DIR", help="keep the profiles of what misses its target"
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure the scenarios in turn, each interleaved with its peers."""
    results: dict[str, Measured] = {}
    wanted = arguments.only or list(SCENARIOS)
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="orchestrate-bench-")
        scratch = Path(stack.enter_context(temporary))
        venv = None
        if "launch" in wanted:
            venv = deepspeed_environment(arguments.python, arguments.deepspeed, scratch / "venv")
        facts = describe(arguments.python, str(venv / "bin/python") if venv else None)
        count = max(SCENARIOS[name] for name in wanted)
        bed = stack.enter_context(make_bed(count, arguments.python, [str(venv)] if venv else []))
        # Before the hosts are taken down: they have up to millions of files.
        stack.enter_context(reported(results, lambda: _report(arguments, facts, results)))
        kept = arguments.profiles or scratch
        kept.mkdir(parents=True, exist_ok=True)
        for name in filter(wanted.__contains__, SCENARIOS):
            scenario = only_cases(_scenario(name, bed, venv), arguments.case)
            for measured in _measure(scenario, bed, arguments.repeats, kept):
                results[scenario.name] = measured
    verdicts = [verdict for result in results.values() for verdict in result.verdicts]
    return MET if all(verdict.met and verdict.enough for verdict in verdicts) else MISSED


def _report(
    arguments: argparse.Namespace, facts: dict[str, str], results: Mapping[str, Measured]
) -> None:
    found = list(results.values())
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(facts, found), indent=1) + "\n")
    print(markdown(facts, found), end="", flush=True)


def _scenario(name: str, bed: Bed, venv: Path | None) -> Scenario:
    makers = {"fan-out": fan_out, "kept-fan-out": kept_fan_out, "probe": probe, "imports": imports}
    if name in makers:
        return makers[name](bed)
    if name in TREES:
        return sync(bed, TREES[name])
    assert venv is not None
    return launch(bed, venv)


def _measure(scenario: Scenario, bed: Bed, repeats: int, kept: Path) -> Iterator[Measured]:
    """What is known after each round; the last one also has the profile of a missed target."""
    measured = None
    for samples in perform(scenario, max(repeats, scenario.repeats), bed.hosts_cpu_s):
        measured = Measured(scenario=scenario, samples=samples, verdicts=judged(scenario, samples))
        yield measured
    if measured is not None and (text := _profile(measured, bed, kept)):
        yield replace(measured, profile=text)


def _profile(measured: Measured, bed: Bed, kept: Path) -> str:
    scenario = measured.scenario
    if scenario.profile and not all(verdict.met for verdict in measured.verdicts):
        return profile(bed, scenario.profile, kept / f"{scenario.name}.pstats")
    return import_profile(bed) if scenario.name == "imports" else ""


COMMAND = Command(
    name="control-plane",
    help="fan-out, sync, launch and start-up, against the tools that people use today",
    epilog="Needs root on Linux, and: openssh-server, iproute2, iptables, clustershell, pdsh, "
    "rsync, git.",
    add_arguments=add_arguments,
    run=run,
)
