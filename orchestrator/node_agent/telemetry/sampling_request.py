"""What a launch asks to have sampled, and the process that does it."""

from __future__ import annotations

import os
import sys

from orchestrator.node_agent.base.agent_errors import BAD_REQUEST, AgentFault
from orchestrator.node_agent.base.node_layout import AGENT, AttemptLayout, private_folder
from orchestrator.node_agent.base.wire import read_strings
from orchestrator.node_agent.telemetry.readings import READINGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

ENTRY = (
    "import sys;sys.path.insert(0,sys.argv.pop(1));"
    "from orchestrator.node_agent.telemetry.sampler import main;main()"
)
FOLDER = "captures"  # in the outputs of the attempt, which travel home


def check_captures(request: Mapping[str, Any]) -> list[str]:
    """``request["captures"]``: names of what is to be sampled."""
    kinds: list[str] = read_strings(request, "captures", len(READINGS), [])
    if len(set(kinds)) < len(kinds) or not set(kinds) <= set(READINGS):
        raise AgentFault(BAD_REQUEST, f"'captures' is not a list of {', '.join(READINGS)}")
    return kinds


def prepare_sampler(
    attempt: AttemptLayout, kinds: Sequence[str], gpus: Sequence[int], rank: int | None
) -> list[str]:
    """The process that samples, and its folder; none where nothing is asked for. Ranks that record
    something find the folder, too. ``rank``: whose reports its newest readings go among.
    """
    if not kinds:
        return []
    folder = os.path.join(attempt.output, FOLDER)
    private_folder(folder)
    indices = ",".join(map(str, gpus))
    program = [sys.executable, "-I", "-S", "-c", ENTRY, AGENT]
    report = "" if rank is None else os.path.join(attempt.report, "rank-%d.jsonl" % rank)
    return [*program, folder, ",".join(kinds), indices, report]
