"""Users' own scripts and commands as jobs."""

from __future__ import annotations

import pytest

from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.workload import (
    Job,
    Per,
)
from orchestrator.parsing.inputs.workloads.command_line import python_call
from orchestrator.parsing.inputs.workloads.jobs import python_job, script_job


def test_a_python_script_is_an_entry() -> None:
    """A launcher gives ranks to it; its arguments follow."""
    call = python_call(["train.py", "--lr", "1e-4"])
    assert call is not None
    job = python_job(call, folder="/p", script="src/train.py")

    assert job.workload.entry == "src/train.py"
    assert job.workload.program == ()
    assert job.argv() == ("--lr", "1e-4")


def test_everything_else_is_a_program() -> None:
    """A script of the project is named from its root, a command is looked up on the nodes."""
    script = script_job(["./a.sh", "x"], folder="/p", script="bin/a.sh")
    command = script_job(["hostname", "-f"], folder="/p", script=None, per=Per.NODE)

    assert script.workload.program == ("./bin/a.sh", "x")
    assert command.workload.program == ("hostname", "-f")
    assert command.workload.ranks.per is Per.NODE
    assert isinstance(command, Job)


@pytest.mark.parametrize("words", [[], [""]])
def test_no_command_is_a_usage_error(words: list[str]) -> None:
    """Nothing after `--` shows how it is meant."""
    with pytest.raises(UsageError, match="no command"):
        script_job(words, folder="/p", script=None)
