"""Homes whose commands are begun by a process that stays warm, and commands for it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from orchestrator.adapters.warm.end import end_warm_processes
from tests.architecture.source import ROOT
from tests.hosts.running import wait_until
from tests.time_limits import scaled, wait_for_exit

# Status 99: nobody that is warm did it. Otherwise nobody could see who did.
NOBODY = 99
ELSEWHERE = (
    "import sys; sys.argv[0] = 'orchestrate'\n"
    "from orchestrator.adapters.warm import client\n"
    "client.ANSWER_S = 60.0\n"
    "try: client.run_elsewhere(sys.argv[1:])\n"
    f"except client.Nobody: sys.exit({NOBODY})"
)
HERE = (
    "import sys; sys.argv[0] = 'orchestrate'; import orchestrator.__main__ as m; sys.exit(m.run())"
)
NAME = (
    "from orchestrator.adapters.warm import client, likeness;"
    "print(client.socket_name(likeness.describe_process()))"
)
REPORTER = Path(__file__).with_name("reporter.py")


class Warm:
    """Commands of one home; ``folder`` is where its warm processes listen."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.folder = home / "warm"
        without = {"XDG_RUNTIME_DIR", "ORCHESTRATE_WARM"}
        self.env = {name: value for name, value in os.environ.items() if name not in without}
        self.env |= {"ORCHESTRATE_HOME": str(home), "ORCHESTRATE_WARM": "1", **variables}
        self.env["PYTHONPATH"] = os.pathsep.join([str(ROOT), self.env.get("PYTHONPATH", "")])

    @property
    def sockets(self) -> list[Path]:
        return [path for path in self.folder.glob("*") if path.is_socket()]

    def argv(self, words: Sequence[str], program: str = ELSEWHERE) -> list[str]:
        return [sys.executable, "-P", "-c", program, *words]

    def run(
        self,
        *words: str,
        program: str = ELSEWHERE,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(words, program),
            env={**self.env, **(env or {})},
            timeout=scaled(60),
            check=False,
            **{"capture_output": True, "text": True, **options},
        )

    def start(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.argv(words), env=self.env, **options)


@contextmanager
def warm_home(home: Path, **options: Any) -> Iterator[Warm]:
    """A home with the product's own warm process, of a command that is started with ``options``.
    Nothing of it runs afterwards.
    """
    warm = Warm(home)
    done = warm.run("--version", program=HERE, **options)
    assert done.returncode == 0, done.stderr
    try:
        wait_until("a warm process", lambda: warm.sockets)
        yield warm
    finally:
        environ = {os.fsencode(name): os.fsencode(value) for name, value in warm.env.items()}
        end_warm_processes(environ)
        wait_until("the end of the warm process", lambda: not list(warm.folder.glob("*.lock")))


@contextmanager
def reporting_home(home: Path, unused_s: float = 600.0, **variables: str) -> Iterator[Warm]:
    """One whose commands are those of ``reporter``."""
    warm = Warm(home, **variables)
    warm.folder.mkdir(parents=True)
    name = warm.run(program=NAME).stdout.strip()
    lock = os.open(warm.folder / f"{name}.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    python = [sys.executable, "-P", REPORTER, warm.folder / name, str(unused_s)]
    env = {name: value for name, value in warm.env.items() if name.startswith(("PYTHON", "L"))}
    process = subprocess.Popen(
        python,
        env=env,
        preexec_fn=lambda: os.dup2(lock, 3),  # noqa: PLW1509 - one system call
        close_fds=False,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    os.close(lock)
    try:
        wait_until("a warm process", lambda: warm.sockets or process.poll() is not None)
        assert process.poll() is None
        yield warm
    finally:
        for path in warm.sockets:
            path.unlink()
        assert wait_for_exit(process, 30) == 0
