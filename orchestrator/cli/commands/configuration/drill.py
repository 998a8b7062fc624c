"""``orchestrate drill``: harmless faults in one's own cluster, measured against the promises."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import Counter
from typing import Any

import click

from orchestrator.adapters.store.layout import Layout
from orchestrator.cli.load_cluster import load_cluster
from orchestrator.cli.options.shared import cluster_options, json_option
from orchestrator.cli.output import print_json, print_table
from orchestrator.core.base.errors import ExitCode, UsageError
from orchestrator.core.base.suggest import did_you_mean
from orchestrator.core.drill_promises import (
    Drill,
    DrillLimits,
    DrillOutcome,
    Judged,
    PromiseKept,
    assign_targets,
    list_drills,
)
from orchestrator.core.verdict.result import Status
from orchestrator.engine.drills.drill_job import sleeping_job
from orchestrator.engine.drills.drill_series import SeriesEnding, perform_drills
from orchestrator.engine.support.interrupts import Interrupts
from orchestrator.view.terminal.text import brief_text, format_seconds

HERE = "(here)"


@click.command()
@cluster_options
@click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="Only this drill; repeatable. --dry-run lists their names.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and contact nothing.")
@json_option
def drill(cluster: str, nodes: str, only: tuple[str, ...], *, dry_run: bool, as_json: bool) -> int:
    """Try out on your own machines what is promised when something breaks.

    \b
    Each drill starts a run of its own: one rank per GPU (or one per node) that
    writes ten lines a second and sleeps between them. It holds the GPUs, as every
    run does, but does not use them. Then one thing is broken:
      kill-rank         SIGKILL to one rank
      freeze-rank       SIGSTOP to one rank
      kill-supervisor   SIGKILL to the run's supervisor on one node
      stop-agent        SIGKILL to the run's agent on one node
      drop-link         this machine's SSH connection to one node is broken off
      kill-coordinator  SIGKILL to the run's coordinator here; another takes over
      lease             the same, and nobody takes over
      interrupt         the run is asked to stop, as by Ctrl-C
    No process but those of the drill's own runs is signalled, no environment is built,
    no setting is changed. After each drill the nodes are searched for what was left
    of it, and its folder is removed there. What stays is what every run leaves in the
    cache of the workdir: the agent (less than 1 MB) and the code of the sleeping job.

    All drills take about a minute. Exits with 0 when every promise was
    kept, 1 when one was broken, 4 when a node cannot be reached, and 75 when another
    run holds GPUs or machines.
    """
    selected = load_cluster(cluster, nodes)
    chosen = _choose_drills(list_drills(DrillLimits()), only)
    pairs = assign_targets(chosen, [spec.name for spec in selected.workers])
    if dry_run:
        _preview_drills(pairs, as_json=as_json)
        return 0
    setting = sleeping_job(Layout.from_environment(os.environ), selected)
    interrupts = Interrupts()
    interrupts.on_hangup = lambda: interrupts.ask(signal.SIGHUP)
    interrupts.listen()
    told = _Told(len(pairs), as_json=as_json)
    ending = asyncio.run(perform_drills(setting, pairs, interrupts, told))
    interrupts.ignore()
    return _show_outcomes(selected.name, ending, as_json=as_json)


def _choose_drills(known: tuple[Drill, ...], only: tuple[str, ...]) -> list[Drill]:
    names = [drill.name for drill in known]
    for name in only:
        if name not in names:
            what = f"no drill is called {name!r}"
            raise UsageError(what, id="drill.unknown", remedy=did_you_mean(name, names))
    return [drill for drill in known if not only or drill.name in only]


class _Told:
    """Progress for people, on stderr; with ``as_json`` each outcome as data, too."""

    def __init__(self, count: int, *, as_json: bool) -> None:
        self._count = count
        self._as_json = as_json
        self._done = 0

    def begun(self, drill: Drill, node: str) -> None:
        where = f" on {node}" if node else ""
        _print_line(f"[{self._done + 1}/{self._count}] {drill.name}{where}: {drill.does}")

    def ended(self, outcome: DrillOutcome) -> None:
        self._done += 1
        if outcome.seconds:
            _print_line(f"      {outcome.verdict}, {format_seconds(outcome.seconds)} in all")
        if outcome.folder:
            _print_line(f"      its run is kept: {outcome.folder}")
            _print_line(f"      to remove it: orchestrate clean {outcome.run_id}")
        if self._as_json:
            print_json("drill", _outcome_record(outcome))


def _print_line(line: str) -> None:
    # A terminal that has gone must not keep the nodes from being cleared up.
    with contextlib.suppress(OSError):
        click.echo(line, err=True)


def _outcome_record(outcome: DrillOutcome) -> dict[str, Any]:
    return {
        "name": outcome.drill.name,
        "node": outcome.node or None,
        "verdict": outcome.verdict.value,
        "reason": outcome.reason or None,
        "promises": [_promise_record(judged) for judged in outcome.judged],
        "seconds": outcome.seconds,
        "run_id": outcome.run_id or None,
        "folder": outcome.folder or None,
    }


def _promise_record(judged: Judged) -> dict[str, Any]:
    measured = None if judged.seconds is None else round(judged.seconds, 3)
    return {
        "name": judged.promise.name,
        "promised": judged.promise.sentence,
        "limit_s": judged.promise.limit_s,
        "measured_s": measured,
        "verdict": judged.verdict.value,
        "detail": judged.detail or None,
    }


def _show_outcomes(cluster: str, ending: SeriesEnding, *, as_json: bool) -> int:
    """The table and a summary, or the one result; the exit code."""
    counts = Counter(outcome.verdict for outcome in ending.outcomes)
    if as_json:
        print_json("result", _result_record(cluster, ending, counts))
    else:
        reasons = ["", *(outcome.reason for outcome in ending.outcomes)]
        pairs = zip(ending.outcomes, reasons, strict=False)
        rows = [row for outcome, before in pairs for row in _promise_rows(outcome, before)]
        print_table(("drill", "node", "promised", "measured", "verdict"), rows)
        print(
            "\n"
            + ", ".join(
                f"{counts[verdict]} {verdict}" for verdict in PromiseKept if counts[verdict]
            )
        )
    if ending.error is not None:
        click.echo(f"orchestrate: {ending.error}", err=True)
    return int(ending.exit_code)


def _promise_rows(outcome: DrillOutcome, before: str) -> list[tuple[str, ...]]:
    """One row for each promise. ``before``: why the last drill was not run."""
    head = (outcome.drill.name, outcome.node or HERE)
    if not outcome.judged:
        why = "likewise" if outcome.reason == before else brief_text(outcome.reason)
        return [(*head, p.sentence, why, outcome.verdict.value) for p in outcome.drill.promises[:1]]
    return [(*head, j.promise.sentence, _measured_text(j), j.verdict.value) for j in outcome.judged]


def _measured_text(judged: Judged) -> str:
    time = "" if judged.seconds is None else f"{judged.seconds:.2f} s"
    return ", ".join(filter(None, (time, brief_text(judged.detail)))) or "yes"


def _result_record(
    cluster: str, ending: SeriesEnding, counts: Counter[PromiseKept]
) -> dict[str, Any]:
    error = ending.error
    status = {ExitCode.DONE: Status.SUCCEEDED, ExitCode.INTERRUPTED: Status.STOPPED}
    return {
        "status": status.get(ending.exit_code, Status.FAILED).value,
        "exit_code": int(ending.exit_code),
        "cluster": cluster,
        **{verdict.name.lower(): counts[verdict] for verdict in PromiseKept},
        "failure": None
        if error is None
        else {"id": error.id, "cause": error.what, "remedy": error.remedy},
    }


def _preview_drills(pairs: list[tuple[Drill, str]], *, as_json: bool) -> None:
    for drill, node in pairs:
        if as_json:
            promises = [{"promised": p.sentence, "limit_s": p.limit_s} for p in drill.promises]
            record = {"name": drill.name, "node": node or None, "does": drill.does}
            print_json("drill-plan", {**record, "promises": promises})
    if not as_json:
        rows = [
            (drill.name, node or HERE, drill.does, "; ".join(p.sentence for p in drill.promises))
            for drill, node in pairs
        ]
        print_table(("drill", "node", "does", "promised"), rows)
