"""Errors as data, for the journal, the verdict and the report."""

from __future__ import annotations

from orchestrator.adapters.store.layout import RunFolder
from orchestrator.core.base.errors import BusyError, OrchestrateError, UsageError
from orchestrator.core.base.problem import Problem
from orchestrator.core.launchers import launcher_errors
from orchestrator.parsing.replies.supervisor_records import BadRecord

# Of errors that nodes answer with: they know what is wrong, but not our commands.
REMEDIES = {
    "OR-AGENT-FOREIGN": "another --run-id; the other run stays as it is",
    "OR-AGENT-BUSY": "queue with --wait SECONDS, or choose other nodes",
    "OR-AGENT-DISK": "free space on the node; orchestrate clean --all removes what old runs left",
}
REMEDIES |= {id: error.remedy for id, error in launcher_errors().items()}
NOT_WRITTEN = "OR-STORE-011"


def problem_of(error: Exception) -> Problem:
    """What went wrong on a node and, where the error knows, what to do next."""
    if isinstance(error, OrchestrateError):
        message = f"{error.what} ({error.why})" if error.why else error.what
        if isinstance(error, UsageError) and error.where:  # a file and its line, not the node
            message = f"{error.where}: {message}"
        remedy = error.remedy or REMEDIES.get(error.id, "")
        return Problem(id=error.id, message=message, remedy=remedy)
    if isinstance(error, TimeoutError):
        return Problem(id="OR-TIME-002", message=str(error) or "the node did not answer in time")
    if isinstance(error, BadRecord):
        return Problem(id="OR-AGENT-REPLY", message=f"invalid reply from the node agent: {error}")
    return Problem(id="OR-IO-001", message=str(error) or type(error).__name__)


def disk_problem(folder: RunFolder, error: OSError) -> Problem:
    """This machine's own disk failed us."""
    return Problem(
        id=NOT_WRITTEN,
        message=f"the coordinator cannot write to {folder.path}: {error.strerror or error}",
        remedy=f"free space there, then: orchestrate resume {folder.run_id} (or stop)",
    )


def not_written(folder: RunFolder, error: OSError) -> BusyError:
    """What happens to the run cannot be written down; with space again, it can be resumed."""
    problem = disk_problem(folder, error)
    return BusyError(problem.message, id=problem.id, remedy=problem.remedy)


def superseded_error(run_id: str, error: OrchestrateError) -> BusyError:
    """The nodes obey another coordinator of this run: from now on it is theirs alone."""
    return BusyError(
        f"another coordinator took run {run_id} over",
        id="OR-RUN-004",
        why=error.what,
        remedy=f"orchestrate attach {run_id}, where it is coordinated now",
    )
