"""A home, an inventory of this machine, and the command line of nights."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from orchestrator.adapters.nightly.schedule_store import (
    find_schedule,
    read_records,
    save_schedule,
)
from orchestrator.adapters.store.layout import Layout
from tests.architecture.source import ROOT
from tests.forks import COMMANDS, Fork
from tests.nightly.crontabs import PrivateCron
from tests.time_limits import scaled

SEOUL = ZoneInfo("Asia/Seoul")


class Desk:
    """A home, an inventory of this machine, and the command line."""

    def __init__(self, root: Path, cron: PrivateCron | None) -> None:
        self.root, self.cron = root, cron
        self.layout = Layout(root / "home")
        self.cluster = root / "here.yaml"
        interpreter, workdir = json.dumps(sys.executable), json.dumps(str(root / "node"))
        self.cluster.write_text(
            "name: here\n"
            f"defaults: {{transport: local, gpus: 0, python: {interpreter}, workdir: {workdir}}}\n"
            "nodes: [n1]\n"
        )
        modules = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
        own = f"{cron.program.parent}{os.pathsep}" if cron else ""
        self.env = {
            **os.environ,
            "ORCHESTRATE_HOME": str(root / "home"),
            "PYTHONPATH": modules,
            "PATH": own + os.environ["PATH"],
            "XDG_CONFIG_HOME": str(root / "config"),
        }

    def start(self, *words: str) -> Fork:
        return COMMANDS.start(["-m", "orchestrator", "nightly", *words], self.root, self.env)

    def run(self, *words: str, code: int = 0) -> str:
        process = self.start(*words)
        output = "".join(process.communicate(timeout=scaled(90)))
        assert process.returncode == code, output
        return output

    def add(self, *options: str, at: str = "19:00", lines: int = 2) -> None:
        what = ["--cluster", str(self.cluster), "--workload", "sleep", "--set", f"lines={lines}"]
        zone = ["--at", at, "--tz", "Asia/Seoul"]
        self.run("add", "jw3", *what, *zone, *options)

    def made_since(self, ago: timedelta) -> None:
        """Let the schedule be older than it is."""
        folder, schedule = find_schedule(self.layout, "jw3")
        save_schedule(folder, replace(schedule, since=time.time() - ago.total_seconds()))

    def nights(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.run("log", "jw3", "--json").splitlines()]

    def kinds(self) -> list[str]:
        folder, _ = find_schedule(self.layout, "jw3")
        return [record.kind.value for record in read_records(folder)]


def minutes_ago(minutes: int) -> str:
    return f"{datetime.now(SEOUL) - timedelta(minutes=minutes):%H:%M}"
