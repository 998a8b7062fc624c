"""What a process that stays warm has imported: the verbs, and what they import on their way.

Nothing here starts a thread, opens a file or reads a variable that is not part of the likeness.
"""

from __future__ import annotations

_VERBS = (
    "jobs.run",
    "jobs.plan",
    "jobs.exec",
    "jobs.sync",
    "machines.probe",
    "runs.existing_runs",
    "runs.compare",
    "configuration.cluster",
    "configuration.workload",
)
MODULES = (
    "orchestrator.cli.main",
    *(f"orchestrator.cli.commands.{name}" for name in _VERBS),
)
