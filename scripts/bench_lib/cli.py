"""The command line of `scripts/bench`."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from virtual_hosts_lib.processes import VirtualHostsError

from .bed import Bed, make_bed
from .detection import detection_markdown, measure_detection, shortfalls
from .diagnose import as_json as diagnose_json
from .diagnose import diagnose_markdown, verdicts
from .diagnose import met as diagnose_met
from .errors import BenchError, Stopped
from .fan_out import fan_out
from .finetune import finetune, finetune_markdown, met
from .first_run import GOAL, first_run_markdown, first_runs, ratios
from .history import history_markdown, history_rows
from .imports import import_profile, imports
from .launch import deepspeed_environment, launch
from .load_client import clients_markdown, clients_met, measure_clients
from .machine import describe
from .null_table import print_null_table
from .partition import HOSTS, Partition, figures, partition_markdown
from .probe import probe
from .profile import profile
from .promises import measure_promises, promises_markdown
from .report import Measured, as_json, judged, markdown, table
from .rounds import Scenario, perform, say
from .sigterm import HOSTS as SAVING_HOSTS
from .sigterm import LAUNCHERS as SAVING_LAUNCHERS
from .sigterm import saving_markdown, saving_runs
from .stats import MIN_SAMPLES
from .sync import sync

MET, FAILED, MISSED = 0, 1, 5
SCENARIOS = {
    "fan-out": 32,
    "probe": 32,
    "sync": 8,
    "launch": 8,
    "imports": 2,
}  # and the hosts they need
EPILOG = """
Reports go to standard output as Markdown, progress to standard error.  Exits with 0 when every
target is met, 5 when one is missed or was repeated too rarely, 1 when something could not be
measured.  Needs root on Linux, and: openssh-server, iproute2, iptables, clustershell, pdsh, rsync,
git.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run what was asked for; the exit code."""
    arguments = _parse(argv)
    try:
        with _signals_stop():
            return COMMANDS[arguments.command](arguments)
    except (BenchError, VirtualHostsError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return FAILED
    except Stopped as stopped:
        say("stopped; everything is cleaned up")
        return stopped.exit_code


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__, epilog=EPILOG)
    commands = parser.add_subparsers(dest="command", required=True)
    control = commands.add_parser(
        "control-plane",
        help="fan-out, sync, launch and start-up, against the tools that people use today",
        epilog=EPILOG,
    )
    control.add_argument(
        "--only", action="append", choices=list(SCENARIOS), help="this scenario; repeatable"
    )
    control.add_argument("--repeats", type=_repeats, default=5, metavar="N", help="default: 5")
    control.add_argument("--json", type=Path, metavar="FILE", help="every sample, for machines")
    control.add_argument(
        "--python",
        default=sys.executable,
        metavar="PROGRAM",
        help="for ours, torchrun and DeepSpeed; needs the runtime's packages and torch"
        " (default: this one)",
    )
    control.add_argument(
        "--deepspeed", type=Path, metavar="VENV", help="default: a temporary one, with pip"
    )
    control.add_argument(
        "--profiles", type=Path, metavar="DIR", help="keep the profiles of what misses its target"
    )
    part = commands.add_parser(
        "partition",
        help="divisible work between unequal hosts: leases against an even split",
        epilog=EPILOG,
    )
    part.add_argument("--repeats", type=_repeats, default=5, metavar="N", help="default: 5")
    part.add_argument("--samples", type=_samples, default=300, metavar="N", help="default: 300")
    part.add_argument("--json", type=Path, metavar="FILE", help="every round, for machines")
    part.add_argument(
        "--python",
        default=sys.executable,
        metavar="PROGRAM",
        help="for ours and the workers; needs the runtime's packages (default: this one)",
    )
    tune = commands.add_parser(
        "finetune",
        help="fine-tuning: our trainer against the usual transformers + peft script",
        epilog="Needs torch, transformers and peft; without GPUs it runs a tiny model.",
    )
    tune.add_argument("--ranks", type=int, default=1, metavar="N", help="GPUs (default: 1)")
    tune.add_argument("--python", default=sys.executable, metavar="PROGRAM")
    tune.add_argument("--json", type=Path, metavar="FILE", help="everything measured")
    tune.add_argument(
        "options", nargs="*", metavar="OPTION", help="for the ranks, after --; see finetune_ranks"
    )
    diagnose = commands.add_parser(
        "diagnose",
        help="how often diagnose names the right cause, on logs whose cause is known",
        epilog="Contacts nobody, and needs neither root nor GPUs.",
    )
    diagnose.add_argument("--json", type=Path, metavar="FILE", help="every case, for machines")
    detection = commands.add_parser(
        "detection",
        help="change points over nights: false alarms and power, against Otava and the naive rule",
        epilog="Makes all series from seeds; needs a package index for Otava, or --otava.",
    )
    detection.add_argument("--json", type=Path, metavar="FILE", help="every rate, for machines")
    detection.add_argument(
        "--otava", type=Path, metavar="PYTHON", help="of an environment that has apache-otava 0.8.0"
    )
    detection.add_argument(
        "--null", action="store_true", help="print the table of the null distribution instead"
    )
    past = commands.add_parser(
        "history",
        help="a history of many runs: how long commands take, beside MLflow's local store",
        epilog="Needs a package index for MLflow, and 5 GB of disk; contacts nobody else.",
    )
    past.add_argument("--runs", type=_runs, default=100_000, metavar="N", help="default: 100000")
    past.add_argument("--figures", type=_repeats, default=50, metavar="N", help="default: 50")
    past.add_argument("--repeats", type=_repeats, default=5, metavar="N", help="default: 5")
    past.add_argument("--json", type=Path, metavar="FILE", help="every median, for machines")
    past.add_argument("--python", default=sys.executable, metavar="PROGRAM")
    past.add_argument(
        "--mlflow", type=Path, metavar="VENV", help="default: a temporary one, with pip"
    )
    promise = commands.add_parser(
        "promises",
        help="the times that are promised under faults, held to the promise itself",
        epilog="Runs the tests that measure them, alone: let the machine do nothing else. "
        "Needs what the tests need.",
    )
    promise.add_argument("--repeats", type=_repeats, default=1, metavar="N", help="default: 1")
    promise.add_argument("--json", type=Path, metavar="FILE", help="every time, for machines")
    promise.add_argument("--python", default=sys.executable, metavar="PROGRAM")
    promise.add_argument(
        "tests", nargs="*", metavar="TEST", help="a file, folder or test of these (default: all)"
    )
    term = commands.add_parser(
        "sigterm",
        help="checkpoints of ranks that save at the first SIGTERM and leave at the second",
        epilog="Needs what virtual hosts need; torchrun needs torch, ray needs ray.",
    )
    term.add_argument("--runs", type=_repeats, default=20, metavar="N", help="default: 20")
    term.add_argument(
        "--launcher", action="append", choices=SAVING_LAUNCHERS, help="repeatable; default: all"
    )
    term.add_argument("--json", type=Path, metavar="FILE", help="every run, for machines")
    term.add_argument("--python", default=sys.executable, metavar="PROGRAM")
    first = commands.add_parser(
        "first-run",
        help="the README's first command in a fresh clone, against that of another commit",
        epilog="Needs git and a package index; a run takes minutes and 1.5 GB of disk.",
    )
    first.add_argument("--commit", default="HEAD", metavar="C", help="ours (default: HEAD)")
    first.add_argument("--against", required=True, metavar="C", help="a commit of this repository")
    first.add_argument("--repeats", type=_repeats, default=3, metavar="N", help="default: 3")
    _add_load_client(commands)
    return parser.parse_args(argv)


def _add_load_client(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    client = commands.add_parser(
        "load-client",
        help="streamed requests per second and memory of the load test's client, beside AIPerf",
        epilog="Needs Linux, taskset, two processors, and a package index or --aiperf.",
    )
    client.add_argument("--repeats", type=_repeats, default=3, metavar="N", help="default: 3")
    client.add_argument(
        "--requests", type=_runs, default=20_000, metavar="N", help="of ours (default: 20000)"
    )
    client.add_argument(
        "--peer-requests", type=_runs, default=2000, metavar="N", help="of AIPerf (default: 2000)"
    )
    client.add_argument(
        "--aiperf", type=Path, metavar="VENV", help="default: a temporary one, with pip"
    )
    client.add_argument("--json", type=Path, metavar="FILE", help="every round, for machines")


def _samples(text: str) -> int:
    number = int(text)
    if not 50 <= number <= 100_000:
        raise argparse.ArgumentTypeError("expected 50 to 100000")
    return number


def _runs(text: str) -> int:
    number = int(text)
    if not 100 <= number <= 10_000_000:
        raise argparse.ArgumentTypeError("expected 100 to 10000000")
    return number


def _repeats(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:
        raise argparse.ArgumentTypeError("expected 1 to 1000")
    return number


@contextlib.contextmanager
def _signals_stop() -> Iterator[None]:
    """Each of these unwinds the stack once, so that everything is cleaned up; then they wait."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def stop(number: int, _: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _control_plane(arguments: argparse.Namespace) -> int:
    wanted = arguments.only or list(SCENARIOS)
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="orchestrate-bench-")
        scratch = Path(stack.enter_context(temporary))
        venv = None
        if "launch" in wanted:
            venv = deepspeed_environment(arguments.python, arguments.deepspeed, scratch / "venv")
        facts = describe(arguments.python, str(venv / "bin/python") if venv else None)
        count = max(SCENARIOS[name] for name in wanted)
        share = [str(venv)] if venv else []
        bed = stack.enter_context(make_bed(count, arguments.python, share))
        kept = arguments.profiles or scratch
        kept.mkdir(parents=True, exist_ok=True)
        results = [
            _measure(scenario, bed, arguments.repeats, kept)
            for name in SCENARIOS
            if name in wanted
            for scenario in _scenarios(name, bed, venv)
        ]
        if arguments.json:
            text = json.dumps(as_json(facts, results), indent=1) + "\n"
            arguments.json.write_text(text)
    print(markdown(facts, results), end="", flush=True)
    verdicts = [verdict for result in results for verdict in result.verdicts]
    return MET if all(verdict.met and verdict.enough for verdict in verdicts) else MISSED


def _partition(arguments: argparse.Namespace) -> int:
    facts = describe(arguments.python, None)
    with make_bed(HOSTS, arguments.python) as bed:
        rounds = list(Partition(bed=bed, samples=arguments.samples).rounds(arguments.repeats))
    if arguments.json:
        measured = [asdict(each) for each in rounds]
        text = json.dumps({"schema_version": 1, "machine": facts, "rounds": measured}, indent=1)
        arguments.json.write_text(text + "\n")
    print(partition_markdown(facts, rounds), end="", flush=True)
    missed = [figure for figure in figures(rounds) if figure.word == "MISSED"]
    return MISSED if missed or len(rounds) < MIN_SAMPLES else MET


def _finetune(arguments: argparse.Namespace) -> int:
    records = finetune(arguments.python, arguments.ranks, arguments.options)
    if arguments.json:
        arguments.json.write_text(json.dumps(records, indent=1) + "\n")
    print(finetune_markdown(records), end="", flush=True)
    return MET if met(records) else MISSED


def _diagnose(arguments: argparse.Namespace) -> int:
    cases = verdicts()
    if arguments.json:
        arguments.json.write_text(diagnose_json(cases) + "\n")
    print(diagnose_markdown(cases), end="", flush=True)
    return MET if diagnose_met(cases) else MISSED


def _detection(arguments: argparse.Namespace) -> int:
    if arguments.null:
        print_null_table()
        return MET
    facts = describe(sys.executable, None)
    found = measure_detection(say, arguments.otava)
    if arguments.json:
        measured = {"schema_version": 1, "machine": facts, **asdict(found)}
        arguments.json.write_text(json.dumps(measured, indent=1, default=str) + "\n")
    print(detection_markdown(facts, found), end="", flush=True)
    return MISSED if shortfalls(found.noises) else MET


def _history(arguments: argparse.Namespace) -> int:
    facts = describe(arguments.python, None)
    rows = list(
        history_rows(
            arguments.python,
            arguments.mlflow,
            runs=arguments.runs,
            figures=arguments.figures,
            repeats=arguments.repeats,
        )
    )
    if arguments.json:
        answers = [asdict(row) for row in rows]
        text = json.dumps({"schema_version": 1, "machine": facts, "rows": answers}, indent=1)
        arguments.json.write_text(text + "\n")
    print(table(("what", "value"), list(facts.items())) + "\n", flush=True)
    print(history_markdown(rows), end="", flush=True)
    return MET if all(row.met for row in rows) else MISSED


def _promises(arguments: argparse.Namespace) -> int:
    facts = describe(arguments.python, None)
    with tempfile.TemporaryDirectory(prefix="orchestrate-bench-") as scratch:
        found = measure_promises(
            arguments.python, arguments.repeats, arguments.tests, Path(scratch)
        )
    if arguments.json:
        times = [asdict(time) | {"kept": time.kept} for time in found.times]
        text = json.dumps({"schema_version": 1, "machine": facts, "times": times}, indent=1)
        arguments.json.write_text(text + "\n")
    print(promises_markdown(facts, found), end="", flush=True)
    if not found.kept:
        return MISSED
    return MET if found.sound else FAILED


def _sigterm(arguments: argparse.Namespace) -> int:
    facts = describe(arguments.python, None)
    with make_bed(SAVING_HOSTS, arguments.python) as bed:
        runs = list(saving_runs(bed, arguments.launcher or SAVING_LAUNCHERS, arguments.runs))
    if arguments.json:
        told = [asdict(run) | {"kept": run.kept} for run in runs]
        text = json.dumps({"schema_version": 1, "machine": facts, "runs": told}, indent=1)
        arguments.json.write_text(text + "\n")
    print(saving_markdown(facts, runs), end="", flush=True)
    return MET if all(run.kept for run in runs) else MISSED


def _first_run(arguments: argparse.Namespace) -> int:
    ours, other = arguments.commit, arguments.against
    runs = list(first_runs((ours, other), arguments.repeats))
    facts = list(describe(sys.executable, None).items())
    print(table(("what", "value"), facts) + "\n", flush=True)
    print(first_run_markdown(runs, ours, other), flush=True)
    return MET if all(ratio <= GOAL for ratio in ratios(runs, ours, other).values()) else MISSED


def _load_client(arguments: argparse.Namespace) -> int:
    facts = describe(sys.executable, None)
    runs = list(
        measure_clients(
            arguments.requests, arguments.peer_requests, arguments.repeats, arguments.aiperf
        )
    )
    if arguments.json:
        told = [asdict(run) for run in runs]
        text = json.dumps({"schema_version": 1, "machine": facts, "runs": told}, indent=1)
        arguments.json.write_text(text + "\n")
    print(clients_markdown(facts, runs), end="", flush=True)
    return MET if clients_met(runs) else MISSED


COMMANDS = {
    "control-plane": _control_plane,
    "partition": _partition,
    "finetune": _finetune,
    "diagnose": _diagnose,
    "detection": _detection,
    "history": _history,
    "promises": _promises,
    "sigterm": _sigterm,
    "first-run": _first_run,
    "load-client": _load_client,
}


def _scenarios(name: str, bed: Bed, venv: Path | None) -> list[Scenario]:
    if name == "fan-out":
        return [fan_out(bed)]
    if name == "probe":
        return [probe(bed)]
    if name == "imports":
        return [imports(bed)]
    if name == "sync":
        return sync(bed)
    assert venv is not None
    return [launch(bed, venv)]


def _measure(scenario: Scenario, bed: Bed, repeats: int, kept: Path) -> Measured:
    samples = perform(scenario, max(repeats, scenario.repeats), bed.hosts_cpu_s)
    verdicts = judged(scenario, samples)
    text = import_profile(bed) if scenario.name == "imports" else ""
    if scenario.profile and not all(verdict.met for verdict in verdicts):
        text = profile(bed, scenario.profile, kept / f"{scenario.name}.pstats")
    return Measured(scenario=scenario, samples=samples, profile=text, verdicts=verdicts)
