"""A real Prometheus scrapes `orchestrate serve` while a run is under way: a killed rank, a broken
link and a missing night fire.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from orchestrator.adapters.nightly.schedule_store import nightly_folder, save_schedule
from orchestrator.adapters.store.journal import Journal
from orchestrator.adapters.store.layout import Layout
from orchestrator.core.base.codec import to_json
from orchestrator.core.nightly.schedule import Schedule
from orchestrator.core.run.connectivity import LinksBroken
from tests.cli.local_desk import open_local_desk
from tests.cli.runs_on_disk import begin
from tests.hosts.running import Job, wait_until
from tests.monitoring.prometheus_server import Prometheus, running_prometheus
from tests.web.served import serve

pytestmark = [pytest.mark.processes, pytest.mark.slow]

SCRIPT = """
import time
import orchestrate_kit as kit

for step in range(1, 6001):
    kit.progress(step, 6000, "step", tokens_per_s=250.0)
    kit.metric("train_loss", 1 / step, "nats/token", step=step)
    time.sleep(0.2)
"""
DAY_S = 86_400.0


def test_a_live_run_is_scraped_and_faults_fire_their_alerts(tmp_path: Path) -> None:
    folder = tmp_path / "prometheus"
    folder.mkdir()
    with (
        open_local_desk(tmp_path, 2) as desk,
        serve(desk.home) as page,
        running_prometheus(folder, f"127.0.0.1:{page.port}") as prometheus,
    ):
        job = desk.start(desk.script("train.py", SCRIPT))
        job.wait_for("RankStarted", 2)
        check_live_run(prometheus, job.run)

        kill_rank(job)
        plant_missing_night(desk.home)
        with broken_link(desk.home) as cut:
            expected = {
                ("OrchestrateRankFailed", job.run),
                ("OrchestrateLinkBroken", cut),
                ("OrchestrateNightlyMissing", "night"),
            }
            wait_until("alerts fire", lambda: expected <= prometheus.firing(), 60)
        assert job.end().result["status"] == "failed"


def check_live_run(prometheus: Prometheus, run: str) -> None:
    """What two ranks report arrives as it was reported."""

    def arrived(expr: str, value: float) -> None:
        wait_until(f"{expr} is {value}", lambda: prometheus.value(expr) == value, 60)

    arrived(f'orchestrate_run_ranks{{run="{run}", state="running"}}', 2)
    arrived(f'orchestrate_run_tokens_per_second{{run="{run}"}}', 500)
    arrived(f'sum(orchestrate_node_up{{run="{run}"}})', 2)
    arrived(f'orchestrate_run_state{{run="{run}", state="running"}}', 1)
    progress = prometheus.value(f'orchestrate_run_progress_ratio{{run="{run}"}}')
    step = prometheus.value(f'orchestrate_run_step_seconds{{run="{run}"}}')
    assert progress is not None
    assert 0 < progress < 1
    assert step is not None
    assert step >= 0.19  # the pause of a step; a loaded machine adds to it


def kill_rank(job: Job) -> None:
    os.kill(job.events("RankStarted")[0]["pid"], signal.SIGKILL)


@contextmanager
def broken_link(home: Path) -> Iterator[str]:
    """In the journal of a run, as its watchdog writes it; the run is this process's while inside,
    and gone before anybody stops it.
    """
    folder = begin(home, "cut")
    broken = LinksBroken(links=(("a", "b"),), seconds=15.0, at=time.time())
    with Journal(folder.journal) as journal:
        journal.append(time.time(), to_json(broken))
    try:
        yield folder.run_id
    finally:
        shutil.rmtree(folder.path)


def plant_missing_night(home: Path) -> None:
    """A schedule that nothing woke for two days."""
    schedule = Schedule(
        name="night",
        cluster="local",
        workload="sleep",
        at="0 2 * * *",
        zone="UTC",
        since=time.time() - 2 * DAY_S,
    )
    save_schedule(nightly_folder(Layout(home), "night"), schedule)
