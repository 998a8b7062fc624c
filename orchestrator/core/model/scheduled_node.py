"""A node as the scheduler that is to give it knows it.

Journals hold it under the names of Slurm, the first scheduler that nodes were asked about.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.core.base.wire_names import wire

# The key of a node's answer in events.
WIRE_KEY = "slurm"


@wire("SlurmNode")
@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledNode:
    """``name``: the scheduler's for it. ``cpus`` and ``gpus``: what the scheduler can give there,
    as it counts; 0 = unknown, or not managed by it.
    """

    name: str
    cpus: int = 0
    gpus: int = 0
