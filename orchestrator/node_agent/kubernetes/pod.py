"""The program of a pod: runs the share of its node as an agent would, until the ranks have ended.

It is the first process of its container, so it takes in orphans and answers the signals by which
Kubernetes ends a pod. Everything else is done by the code that does it over SSH: snapshot, launch,
supervisor, watch.
"""

from __future__ import annotations

import os
import signal
import sys

from orchestrator.node_agent.attempt.launch import launch_attempt
from orchestrator.node_agent.attempt.reservations import Reservations
from orchestrator.node_agent.attempt.run_operations import stop_attempt
from orchestrator.node_agent.attempt.watch import WatchStream
from orchestrator.node_agent.base.agent_errors import ABSENT, AgentFault
from orchestrator.node_agent.base.node_layout import NodeLayout
from orchestrator.node_agent.facts.gather import gather_facts
from orchestrator.node_agent.facts.interpreter import resolve_interpreter
from orchestrator.node_agent.kubernetes.pod_code import bring_code
from orchestrator.node_agent.kubernetes.pod_network import await_interface
from orchestrator.node_agent.kubernetes.pod_output import PodOutput, judge
from orchestrator.node_agent.kubernetes.pod_plan import (
    INTERFACE,
    LEADER,
    LEADER_ADDRESS,
    PodPlan,
    read_plan,
)
from orchestrator.node_agent.kubernetes.pod_start import UNFIT, end_pod, node_layout, node_rank
from orchestrator.node_agent.process.children import reap_children

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

TIMED_OUT, TERMINATED = 124, 143  # as the exit codes of orchestrate
ENDING = (signal.SIGTERM, signal.SIGINT)


class Pod:
    """One attempt of one node's share."""

    def __init__(self, told: PodPlan, layout: NodeLayout) -> None:
        self._told = told
        self._layout = layout
        self._names: dict[str, Any] = {}
        self._launching = False
        self._stopped = 0

    def run(self, code: str) -> tuple[int, str]:
        """(exit code, why). ``code``: the folder with the code. Raises :class:`AgentFault`."""
        for number in ENDING:
            signal.signal(number, self._on_end)
        bring_code(self._layout, code, self._told.plan["code"])
        self._check_interpreter()
        request = self._launch_request()
        self._launching = True
        launch_attempt(Reservations(), self._layout, request)
        self._names = {name: request[name] for name in ("run", "node", "attempt", "grace_s")}
        signal.signal(signal.SIGCHLD, _take_in_orphans)
        self._stop_if_asked()  # while they were started
        self._limit_time()
        return self._follow()

    def _launch_request(self) -> dict[str, Any]:
        """With facts of this pod, and the next free attempt: a claim may keep earlier ones."""
        facts = gather_facts(self._layout.root, {})["facts"]
        request = self._told.launch_request(self._places(), os.environ, facts)
        attempts = self._layout.run(request["run"], request["node"]).attempts()
        return {**request, "attempt": max(attempts, default=0) + 1}

    def _places(self) -> dict[str, str]:
        """What this pod knows only now."""
        point = self._told.meeting_point
        if not point:
            return {}
        leader = os.environ.get(LEADER_ADDRESS, "")
        if point == LEADER and not leader:
            raise AgentFault(ABSENT, f"{LEADER_ADDRESS} is not set: this is no pod of a group")
        within_s = float(self._told.plan["budgets"]["prepare_s"])
        interface = await_interface(point.replace(LEADER, leader), within_s)
        return {LEADER: leader, INTERFACE: interface}

    def _check_interpreter(self) -> None:
        """Before anything starts: does the image have what the ranks import?"""
        if self._told.workload["program"]:
            return
        value = self._told.share["interpreter"]
        modules = list(self._told.workload["modules"])
        asked = {"interpreter": {"kind": "interpreter", "value": value}, "modules": modules}
        found = resolve_interpreter(asked)["modules"]
        absent = [module for module in modules if module not in found]
        if absent:
            raise AgentFault(ABSENT, f"{value} of this image lacks {', '.join(absent)}")

    def _limit_time(self) -> None:
        run_s = self._told.plan["budgets"]["run_s"]
        if run_s is not None:
            signal.signal(signal.SIGALRM, self._on_end)
            signal.setitimer(signal.ITIMER_REAL, max(run_s, 0.001))

    def _on_end(self, number: int, _: FrameType | None) -> None:
        """The first reason counts; Kubernetes kills who does not end in time."""
        if self._stopped:
            return
        self._stopped = TIMED_OUT if number == signal.SIGALRM else TERMINATED
        if not self._launching:
            end_pod(self._stopped, "stopped before its ranks were started")
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        if self._stopped and self._names:
            stop_attempt(self._layout, self._names)

    def _follow(self) -> tuple[int, str]:
        """Until the supervisor is gone, and everything that it left is shown."""
        output = PodOutput(1)
        run = self._layout.run(self._names["run"], self._names["node"])
        watch = WatchStream("pod", output, run.attempt(self._names["attempt"]), {})
        output.credit = watch.credit
        watch.run()
        output.finish()
        return judge(output.records, self._stopped)


def _take_in_orphans(_: int, __: FrameType | None) -> None:
    reap_children()


def main() -> None:
    """``sys.argv``: see ``pod_start.py``. Ends the process."""
    plan, code, work, first = sys.argv[1:]
    rank = node_rank(first, os.environ)
    try:
        ended, why = Pod(read_plan(plan, rank), node_layout(work, rank)).run(code)
    except AgentFault as fault:
        end_pod(UNFIT, f"{fault.message} [{fault.id}]")
    except OSError as error:
        end_pod(UNFIT, str(error))
    end_pod(ended, why)
