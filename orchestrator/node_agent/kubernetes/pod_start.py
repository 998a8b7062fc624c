"""The start of a pod, out of the agent's package in a ConfigMap: unpacks it and runs it.

``sys.argv``: the folders of the plan, of the code and to work in; the node rank of the first pod.
"""

from __future__ import annotations

import hashlib
import os
import sys

from orchestrator.node_agent.base.agent_errors import AgentFault
from orchestrator.node_agent.base.bootstrap import unpack_package
from orchestrator.node_agent.base.node_layout import NodeLayout
from orchestrator.node_agent.code.complete_snapshots import boot_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

# How the controllers of JobSet and LeaderWorkerSet number the pods of one template.
INDEXES = ("JOB_COMPLETION_INDEX", "LWS_WORKER_INDEX")
# Where Kubernetes looks for why a container ended, and how much it reads.
TERMINATION_LOG, MAX_REASON_BYTES = "/dev/termination-log", 4096
UNFIT = 4  # as the exit code of orchestrate
ENTRY = (
    "import sys;sys.path.insert(0,sys.argv.pop(1));"
    "from orchestrator.node_agent.kubernetes.pod import main;main()"
)


def node_rank(first: str, environment: Mapping[str, str]) -> int:
    """This pod's place among the nodes of the plan. Raises ``ValueError``."""
    for name in INDEXES:
        if name in environment:
            return int(first) + int(environment[name])
    raise ValueError(
        "neither of %s is set: this is no pod of an exported job" % " and ".join(INDEXES)
    )


def node_layout(work: str, rank: int) -> NodeLayout:
    """Pods that share a claim have a folder each, by their node rank.

    Created, and not looked at closely: Kubernetes makes volumes that everybody may write to, and
    nobody else is in a pod. Raises ``AgentFault``.
    """
    layout = NodeLayout(os.path.join(work, "node-%d" % rank))
    layout.create()
    return layout


def end_pod(code: int, why: str) -> NoReturn:
    """End this process, and say why on standard error and to Kubernetes."""
    if why:
        os.write(2, f"orchestrate: {why}\n".encode(errors="replace"))
        _leave_reason(why)
    sys.exit(code)


def _leave_reason(why: str) -> None:
    """Outside of a container there is no such file."""
    try:
        fd = os.open(TERMINATION_LOG, os.O_WRONLY)
    except OSError:
        return
    try:
        os.write(fd, why.encode(errors="replace")[:MAX_REASON_BYTES])
    finally:
        os.close(fd)


def _unpack_agent(plan: str, layout: NodeLayout) -> str:
    """The agent's directory, which may be there from an earlier start of the container."""
    with open(os.path.join(plan, "agent.zip"), "rb") as file:
        data = file.read()
    digest = hashlib.sha256(data).hexdigest()
    agent = os.path.join(layout.agents, digest[:16])
    mark = f"{agent}/.whole-{boot_name()}"
    if not os.path.lexists(mark):
        unpack_package(data, digest, agent, mark)
    return agent


def main() -> None:
    """Becomes the program of the pod."""
    plan, _, work, first = sys.argv[1:]
    try:
        agent = _unpack_agent(plan, node_layout(work, node_rank(first, os.environ)))
    except (AgentFault, OSError, ValueError) as error:
        end_pod(UNFIT, str(error))
    argv = [sys.executable, "-I", "-S", "-c", ENTRY, agent, *sys.argv[1:]]
    os.execv(sys.executable, argv)  # noqa: S606 - no shell is wanted
