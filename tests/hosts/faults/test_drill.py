"""`orchestrate drill` on three hosts: promises are kept, and broken ones are seen."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from virtual_hosts_lib.hosts import VirtualHosts

from orchestrator.adapters.catalog.catalog import Catalog
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.run_list import read_result
from orchestrator.core.base.errors import ExitCode
from orchestrator.core.drill_promises import (
    Drill,
    DrillLimits,
    DrillOutcome,
    PromiseKept,
    assign_targets,
    list_drills,
)
from orchestrator.core.verdict.result import Status
from orchestrator.engine.drills.drill_job import sleeping_job
from orchestrator.engine.drills.drill_series import SeriesEnding, perform_drills
from orchestrator.engine.support.interrupts import Interrupts
from tests.hosts.processes import look
from tests.hosts.running import Desk, wait_until
from tests.time_limits import Measured, assert_within, budget, scaled, slowdown

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(240)]

LINES = {"stop-agent": 20, "drop-link": 20, "kill-coordinator": 30}
ALL_S = 120.0
REFUSE = "-p tcp --dport 22 -j REJECT --reject-with tcp-reset".split()


@pytest.fixture
def quick() -> dict[str, Drill]:
    """Shorter than a user's: the waiting is shortened, not what is promised beyond it. A lease
    outlasts what keeps a coordinator from renewing it, which is all that a busy machine does.
    """
    limits = DrillLimits(hang_s=budget(3.0), lease_s=max(2.0, scaled(1.0)), grace_s=1.0)
    found = list_drills(limits)
    return {drill.name: replace(drill, lines=LINES.get(drill.name, drill.lines)) for drill in found}


def with_limits(drill: Drill, factor: float) -> Drill:
    """The drill with all times that it promises so many times as long."""
    promises = (
        promise if promise.limit_s is None else replace(promise, limit_s=promise.limit_s * factor)
        for promise in drill.promises
    )
    return replace(drill, promises=tuple(promises))


class Heard:
    """An audience that remembers."""

    def __init__(self) -> None:
        self.outcomes: list[DrillOutcome] = []

    def begun(self, drill: Drill, node: str) -> None:
        assert bool(node) is not drill.here

    def ended(self, outcome: DrillOutcome) -> None:
        self.outcomes.append(outcome)


def drilled(desk: Desk, chosen: Sequence[Drill]) -> SeriesEnding:
    """The drills on the desk's cluster, in this process."""
    cluster = Catalog.from_environment({}).cluster(str(desk.cluster))
    setting = sleeping_job(Layout(desk.home), cluster)
    heard = Heard()
    pairs = assign_targets(chosen, setting.nodes)
    ending = asyncio.run(perform_drills(setting, pairs, Interrupts(), heard))
    assert heard.outcomes == list(ending.outcomes)
    return ending


def left_on(hosts: VirtualHosts) -> dict[str, list[object]]:
    """Folders of drills and processes of their runs, by host."""
    found: dict[str, list[object]] = {}
    for name in hosts.names:
        folders = (hosts.home(name) / ".orchestrate/node/runs").glob("*-drill-*")
        there: list[object] = [path.name for path in folders]
        there += look(hosts, name, text="sleep/sleep.py")
        if there:
            found[name] = there
    return found


def told(outcome: DrillOutcome) -> str:
    """What was measured, for whoever reads the test's output."""
    name, judged = outcome.drill.name, [(j.verdict, j.seconds, j.detail) for j in outcome.judged]
    return f"{name}: {judged} {outcome.reason}, {outcome.seconds:.1f} s in all\n"


def runs_here(desk: Desk) -> list[Path]:
    return [path for path in (desk.home / "runs").glob("*") if path.is_dir()]


def test_every_promise_is_kept(
    desk: Desk, hosts: VirtualHosts, quick: dict[str, Drill], measured: Measured
) -> None:
    """All drills on three hosts; nothing is left there, nothing here."""
    began = time.monotonic()
    grown = slowdown()
    ending = drilled(desk, [with_limits(drill, grown) for drill in quick.values()])
    sys.stdout.writelines(map(told, ending.outcomes))
    assert {o.drill.name: o.verdict for o in ending.outcomes} == dict.fromkeys(
        quick, PromiseKept.KEPT
    )
    assert ending.exit_code is ExitCode.DONE
    assert left_on(hosts) == {}
    assert runs_here(desk) == []
    for outcome in ending.outcomes:
        for judged in outcome.judged:
            if judged.seconds is not None and judged.promise.limit_s is not None:
                what = f"drill {outcome.drill.name}: {judged.promise.text}"
                measured(what, judged.seconds, judged.promise.limit_s / grown)
    assert_within("all drills", time.monotonic() - began, ALL_S)


def test_a_promise_that_is_not_kept_is_told(
    desk: Desk, hosts: VirtualHosts, quick: dict[str, Drill]
) -> None:
    """With limits of nothing the very same run breaks its promises: exit 1, its folder is kept."""
    ending = drilled(desk, [with_limits(quick["interrupt"], 0.0)])
    (outcome,) = ending.outcomes
    assert [judged.verdict for judged in outcome.judged] == [PromiseKept.BROKEN, PromiseKept.KEPT]
    assert ending.exit_code is ExitCode.RUN_FAILED
    assert runs_here(desk) == [Path(outcome.folder)]
    result = read_result(RunFolder(Path(outcome.folder)))
    assert result is not None
    assert result.status is Status.STOPPED
    assert left_on(hosts) == {}


@pytest.fixture
def refuse(hosts: VirtualHosts) -> Iterator[Callable[[str], None]]:
    """A function that makes a host refuse SSH at once, connections that exist included."""
    refusing: list[str] = []

    def rule(name: str, action: str) -> None:
        argv = hosts.exec_argv(name, ["iptables", action, "INPUT", *REFUSE])
        subprocess.run(argv, check=True, timeout=scaled(20))

    def begin(name: str) -> None:
        rule(name, "-I")
        refusing.append(name)

    yield begin
    for name in refusing:
        rule(name, "-D")


def test_a_host_that_is_lost_meanwhile_is_no_traceback(
    desk: Desk, hosts: VirtualHosts, quick: dict[str, Drill], refuse: Callable[[str], None]
) -> None:
    """The drill that it spoils is broken, the rest is not run, and the exit code is 4."""
    budgets = replace(quick["stop-agent"].budgets, silence_s=budget(2.0), lease_s=budget(2.0))
    spoiled = replace(quick["stop-agent"], budgets=budgets, lines=40)
    logs = desk.home / "runs"

    def lose() -> None:
        def goes_on() -> bool:
            found = logs.glob("*/logs/vh2/rank-1.out")
            return any(path.read_bytes().count(b"\n") > 12 for path in found)

        wait_until("the drill's run goes on", goes_on)
        refuse("vh2")

    losing = threading.Thread(target=lose)
    losing.start()
    ending = drilled(desk, [spoiled, quick["interrupt"]])
    losing.join(scaled(10))
    first, second = ending.outcomes
    assert (first.node, first.verdict, second.verdict) == (
        "vh3",
        PromiseKept.BROKEN,
        PromiseKept.NOT_RUN,
    )
    assert {
        judged.promise.name for judged in first.judged if judged.verdict is PromiseKept.BROKEN
    } == {
        "logs",
        "nothing-left",
    }
    assert ending.exit_code is ExitCode.PREFLIGHT
    assert ending.error is not None
    assert "vh2" in ending.error.what


def test_the_command_tells_machines(desk: Desk, hosts: VirtualHosts) -> None:
    """One line for each drill and one last result."""
    words = ("drill", "--cluster", str(desk.cluster), "--only", "interrupt")
    done = desk.command(*words, "--json")
    record, result = map(json.loads, done.stdout.splitlines())
    assert (record["type"], record["name"], record["verdict"]) == ("drill", "interrupt", "kept")
    assert record["promises"][0]["measured_s"] <= record["promises"][0]["limit_s"]
    assert (result["type"], result["exit_code"], result["kept"]) == ("result", 0, 1)
    assert done.returncode == 0
    assert runs_here(desk) == []


def test_a_drill_gives_way_to_a_run(desk: Desk, hosts: VirtualHosts) -> None:
    """Exit 75 with the holder while another run has the machines, which it does not disturb."""
    run = desk.start("rank.py", "stay", options=["--exclusive"])
    run.wait_for_line("ready", 3)
    done = desk.command("drill", "--cluster", str(desk.cluster), "--only", "kill-rank")
    assert done.returncode == ExitCode.BUSY, done.stderr
    assert run.run in done.stderr
    assert "not-run" in done.stdout
    run.interrupt()
    assert run.end().result["status"] == "stopped"
