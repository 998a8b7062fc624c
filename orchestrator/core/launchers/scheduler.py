"""Somebody else who gives the nodes: what is particular about asking, and about its words. Pure.

What nodes themselves do with a scheduler is registered in ``node_agent/base/schedulers.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.core.model.checks import NodeFinding
from orchestrator.core.model.request import RunRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignLogs:
    """How the scheduler's own tools write, outside of any run of ours; all are patterns.

    ``commands``: programs that put their name before a line. ``prefix``: what else stands before
    one, with the group ``node``. ``file``: how it calls a rank's output, with the group ``rank``.
    """

    commands: tuple[str, ...] = ()
    prefix: str = ""
    file: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduler:
    """What a launcher says of the scheduler that it asks for the nodes.

    ask: ``question`` is the operation of a node's agent that asks about that node; ``conflict``
    tells why a node cannot take part beside those before it.
    submit: ``plan_job`` is what all nodes of a plan agree on, from the GPUs that each is to give;
    only the launcher looks into it. ``holds_nodes`` tells whether, with the user's options, the
    nodes are ours before the launch.
    follow: ``label`` of the process that asks for the job. Its output is shown while no rank runs.
    errors: those of its processes are the launcher's; ``ended`` is the id of the one that says that
    the scheduler ended the job.
    release: the node's agent does that, for every job that is recorded there.
    logs: ``logs`` of jobs that it started without us.
    """

    label: str
    question: str
    plan_job: Callable[[RunRequest, Mapping[str, NodeFinding], Mapping[str, int]], object]
    conflict: Callable[[NodeFinding, Sequence[NodeFinding]], str | None]
    holds_nodes: Callable[[Sequence[str]], bool]
    ended: str
    logs: ForeignLogs = field(default_factory=ForeignLogs)
