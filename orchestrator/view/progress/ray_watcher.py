"""What the ranks of the workload ``ray_cluster`` say of their cluster, gathered as it comes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from orchestrator.core.run.events import Event
from orchestrator.core.run.kit_reports import Reported
from orchestrator.core.run.state import RunState
from orchestrator.core.verdict.result import Result
from orchestrator.parsing.replies.display_text import LineDecoder
from orchestrator.view.tables.ray_text import RayClusterState, RayMember

# As workloads/ray_cluster writes and reports it; nothing else from there is shown to be typed.
ENVIRONMENT = re.compile(r"ray_cluster: \S{1,128}: environment (/[A-Za-z0-9_./-]{1,160})")
FIGURE = re.compile(r"ray_(?P<what>cpus|gpus|dashboard)\.(?P<node>.+)")
MAX_AMOUNT = 65_535


@dataclass(slots=True)
class RayWatcher:
    """An observer of one run; what was said in an attempt that is over does not count."""

    state: RunState
    _attempt: int = 0
    _figures: dict[tuple[str, str], int] = field(default_factory=dict)
    _environments: dict[str, str] = field(default_factory=dict)
    _lines: dict[str, LineDecoder] = field(default_factory=dict)

    def on_event(self, at: float, event: Event, state: RunState) -> None:  # noqa: ARG002 - Observer
        self.state = state
        if state.attempt != self._attempt:
            self._attempt = state.attempt
            self._figures.clear()
            self._environments.clear()
        if isinstance(event, Reported) and event.attempt is None:
            self._take_figure(event)

    def _take_figure(self, event: Reported) -> None:
        found = FIGURE.fullmatch(event.name)
        if found and found["node"] == event.node and 0 <= event.value <= MAX_AMOUNT:
            self._figures[event.node, found["what"]] = int(event.value)

    def on_log(self, node: str, file: str, chunk: bytes) -> None:
        if not file.endswith(".out"):
            return
        for line in self._lines.setdefault(f"{node}/{file}", LineDecoder()).feed(chunk):
            if found := ENVIRONMENT.fullmatch(line):
                self._environments[node] = found[1]

    def on_note(self, text: str) -> None:
        """Nothing that is noted is about the cluster."""

    def close(self, result: Result | None) -> None:
        """There is nothing to close."""

    def look(self, state: str) -> RayClusterState:
        """What is known by now; ``state`` as ``ps`` shows the run."""
        plan = self.state.plan
        head = plan.rendezvous if plan is not None else None
        names = [share.name for share in plan.nodes] if plan is not None else []
        return RayClusterState(
            run_id=self.state.request.run_id,
            state=state,
            cluster=self.state.request.cluster,
            address=_address(head.address, head.port) if head is not None else "",
            members=tuple(map(self._member, names)),
            dashboard=self._figures.get((names[0], "dashboard"), 0) if names else 0,
        )

    def _member(self, name: str) -> RayMember:
        return RayMember(
            name=name,
            cpus=self._figures.get((name, "cpus")),
            gpus=self._figures.get((name, "gpus")),
            environment=self._environments.get(name, ""),
        )


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
