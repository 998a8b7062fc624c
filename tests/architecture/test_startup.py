"""`orchestrate --help` answers at once because it loads next to nothing."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.architecture.source import ROOT
from tests.time_limits import scaled

pytestmark = pytest.mark.processes

HEAVY = "asyncssh jinja2 numpy paramiko pydantic ray rich sqlalchemy torch transformers".split()
PROGRAM = """
import atexit, sys
from orchestrator.cli.main import main
sys.argv = ["orchestrate", *sys.argv[1:]]
atexit.register(lambda: print(*sys.modules, file=sys.stderr))
sys.exit(main())
"""


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["run", "--help"]])
def test_asking_for_help_loads_nothing_heavy(arguments: list[str]) -> None:
    """The libraries that take tenths of a second are imported where they are used."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "orchestrate" in done.stdout
    assert [name for name in done.stderr.split() if name in HEAVY] == []


def test_a_run_begins_without_what_its_end_needs() -> None:
    """Reports and notices are for the end; HTTP and SMTP belong to the process that sends, which no
    run waits for.
    """
    begun, ended = (
        modules_after("import orchestrator.cli.coordinate"),
        modules_after(
            "import orchestrator.cli.coordinate; from orchestrator.engine.support import load_end; "
            "load_end.load_modules()"
        ),
    )
    end = {"orchestrator.adapters.notify.outbox", "orchestrator.adapters.report.publish"}
    assert end.isdisjoint(begun)
    assert end <= ended
    assert {"smtplib", "urllib.request"}.isdisjoint(ended)


def modules_after(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"{program}; import sys; print(*sys.modules)"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=True,
    )

    return set(done.stdout.split())
