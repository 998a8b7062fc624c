"""Runs of the product: begun, shown in a few lines, and their processes on this machine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STEP_S = 420
SETTLE_S = 5.0


@dataclass(frozen=True, slots=True)
class RunProcess:
    """A process of a run: the words of its command line, and its variables as NAME=VALUE."""

    pid: int
    words: list[bytes]
    environment: list[bytes]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"}


def orchestrate(
    out: Path, name: str, *words: str, verb: str = "run", cwd: Path = ROOT
) -> dict[str, object]:
    """One run's result object; its events and stderr stay in OUT."""
    began = time.monotonic()
    argv = [sys.executable, "-m", "orchestrator", verb, "--json", *words]
    done = subprocess.run(
        argv,
        cwd=cwd,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=STEP_S,
        check=False,
    )
    (out / f"{name}.stderr").write_text(done.stderr)
    result: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    (out / f"{name}.json").write_text(json.dumps(result, indent=1))
    took = time.monotonic() - began
    print(
        f"== {name}: {result['status']} exit {done.returncode} in {took:.1f} s at {time.time():.2f}"
    )
    print(json.dumps({k: result[k] for k in ("world_size", "timings", "failure", "nodes")}))
    show_sweeps(done.stdout)
    show_rounds(done.stdout)
    metrics = result["metrics"]
    assert isinstance(metrics, dict)
    for key, metric in metrics.items():
        print(f"   {key} = {metric['value']} {metric['unit']} {metric['verdict']}")
    show_predictions(result)
    print(done.stderr[-1500:] if done.returncode else "", flush=True)
    return result


def show_predictions(result: dict[str, object]) -> None:
    """Predicted beside measured."""
    predictions = result["predictions"]
    assert isinstance(predictions, list)
    for each in predictions:
        bounds = f"{each['low']:.6g} to {each['high']:.6g}"
        error = "-" if each["error"] is None else f"{100 * each['error']:+.1f} %"
        print(f"   predicted {each['name']} {each['predicted']:.6g} ({bounds}), {error}, "
              f"measured {each['measured']}, inside {each['inside']}")  # fmt: skip


def show_sweeps(lines: str) -> None:
    """What the nodes said at the end: no process is left, and the GPUs have their memory back."""
    events = (json.loads(line).get("event", {}) for line in lines.splitlines())
    for event in events:
        if event.get("type") == "Swept":
            drained = event["gpu_drained"]
            print(f"   {event['node']}: clean {event['clean']}, GPU memory is back: {drained}")


def show_rounds(lines: str) -> None:
    """What broke, how long it took to know, and what each averaging over SSH cost."""
    for event in (json.loads(line).get("event", {}) for line in lines.splitlines()):
        if event.get("type") in {"FabricProbed", "Classified"}:
            print(f"   {json.dumps(event)}")
        if event.get("type") == "RoundClosed":
            megabytes = event["bytes"] / 1e6
            print(
                f"   round {event['round']} after step {event['step']}: {megabytes:.1f} MB in "
                f"{event['seconds']:.1f} s, rows {event['weights']}, missing {event['missing']}"
            )


def show_logs(run: object, *options: str) -> None:
    """The run's own words."""
    argv = [sys.executable, "-m", "orchestrator", "logs", str(run), *options]
    done = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False)
    print("\n".join(done.stdout.splitlines()[-25:]), flush=True)


def value_of(result: dict[str, object], name: str) -> float | None:
    """A figure of a result, if it was reported."""
    metrics = result["metrics"]
    assert isinstance(metrics, dict)
    value: float | None = metrics.get(name, {}).get("value")
    return value


def processes_of_run(run_id: str) -> Iterator[RunProcess]:
    """Those on this machine, by their environment."""
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            words = (proc / "cmdline").read_bytes().split(b"\0")
            names = (proc / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"ORCHESTRATE_RUN_ID={run_id}".encode() in names:
            yield RunProcess(int(proc.name), words, names)


def signal_rank_one(run_id: str, number: int, deadline_s: float) -> None:
    """Wait until rank 1 of the run has been there for a while, then signal it by its pid."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        for process in processes_of_run(run_id):
            if b"RANK=1" in process.environment and process.words[1:2] == [b"-u"]:
                time.sleep(SETTLE_S)
                try:
                    os.kill(process.pid, number)
                except ProcessLookupError:
                    break  # a trial before the launch, and over
                name = signal.Signals(number).name
                print(f"{name} to rank 1 (pid {process.pid}) at {time.time():.2f}", flush=True)
                return
        time.sleep(0.2)
    print("no rank to signal was found", flush=True)
