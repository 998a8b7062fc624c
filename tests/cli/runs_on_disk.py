"""Runs on disk as the engine leaves them, made by the real state machine in an obedient world."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from orchestrator.adapters.store.journal import Journal
from orchestrator.adapters.store.layout import Layout, RunFolder
from orchestrator.adapters.store.liveness import identify_self, write_identity
from orchestrator.adapters.store.metric_series import Point
from orchestrator.adapters.store.run_list import write_result
from orchestrator.core.base.codec import to_json
from orchestrator.core.run.events import Event
from orchestrator.core.verdict.result import Result
from orchestrator.core.verdict.verdict import conclude_run
from tests.core.world import World, request

LOGS = {
    ("a", "rank-0.out"): b"hello from 0\nsame\n",
    ("a", "rank-0.err"): b"warning 0\n",
    ("b", "rank-1.out"): b"hello from 1\nsame\n",
    ("b", "rank-10.out"): b"ten\n",
}


def begin(home: Path, run_id: str = "r1") -> RunFolder:
    """A run of two nodes that this process coordinates, without any event yet."""
    folder = Layout(home).run(run_id)
    folder.create()
    folder.request.write_text(json.dumps(to_json(request("a", "b"))))
    write_identity(folder.coordinator, identify_self(5.0))
    return folder


def events_of(*extra: Event) -> tuple[list[Event], Result]:
    """All events of a run, and its verdict."""
    world = World(request("a", "b"))
    state = world.run(*extra)
    result = conclude_run(state, timings={"watch": 2.0}, report="/r/report.html")
    return [event for event, _ in world.log], result


def finished(home: Path, *extra: Event) -> RunFolder:
    """The same run at its end, with logs and a loss curve."""
    folder = begin(home)
    events, result = events_of(*extra)
    with Journal(folder.journal) as journal:
        journal.append_many((float(at), to_json(event)) for at, event in enumerate(events))
    for (node, file), content in LOGS.items():
        folder.node_logs(node).mkdir(exist_ok=True)
        folder.log(node, file).write_bytes(content)
    points = [Point("a", 0, "loss", 2.0 / (n + 1), "nats", n, 1.0 + n / 10) for n in range(3)]
    folder.metrics.write_text("".join(json.dumps(asdict(p)) + "\n" for p in points))
    write_result(folder, result)
    return folder
