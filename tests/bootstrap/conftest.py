"""A small checkout: the real launcher and bootstrap around a program that tells its start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.time_limits import Deadline, communicate

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
DEADLINE_S = 60.0
PROGRAM = """
import json, os, sys

def run():
    told = {"cwd": os.getcwd(), "argv": sys.argv, "prefix": sys.prefix, "file": __file__}
    print(json.dumps(told))
    return 7
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkout:
    """A folder with ``scripts/orchestrate`` and a lock of its own."""

    root: Path

    @property
    def launcher(self) -> Path:
        return self.root / "scripts" / "orchestrate"

    @property
    def lock(self) -> Path:
        return self.root / "requirements" / "runtime.lock"

    def environments(self) -> list[Path]:
        return sorted(self.root.glob(".venv/runtime-*/"))

    def ready(self) -> list[Path]:
        return [path for path in self.environments() if (path / "ready").exists()]

    def builder(self) -> int:
        """The process that is building, from the lock file that it holds."""
        (guard,) = self.root.glob(".venv/.runtime-*.guard")
        return int(guard.read_text())

    def start(self, *arguments: str, **settings: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self.launcher), *arguments],
            env=environment(**settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run to the end; ``settings`` are added to the environment."""
        with self.start(*arguments, **settings) as process:
            stdout, stderr = communicate(process, DEADLINE_S)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def environment(**settings: str) -> dict[str, str]:
    """The tests' own interpreter builds; no package index is within reach."""
    return {**os.environ, "ORCHESTRATE_PYTHON": sys.executable, "PIP_NO_INDEX": "1", **settings}


def create_checkout(root: Path) -> Checkout:
    """A checkout whose lock lists no package."""
    (root / "scripts").mkdir(parents=True)
    for name in ("orchestrate", "environment.sh", "bootstrap.py"):
        shutil.copy2(SCRIPTS / name, root / "scripts")
    for file, text in {
        "requirements/runtime.lock": "# nothing\n",
        "orchestrator/__init__.py": "",
        "orchestrator/__main__.py": PROGRAM,
    }.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_text(text)
    return Checkout(root=root)


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    """A checkout that has never been used, below a folder with a space in its name."""
    return create_checkout(tmp_path / "a checkout")


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = create_checkout(tmp_path_factory.mktemp("built") / "a checkout")
    done = checkout.run()
    assert done.returncode == 7, done.stderr
    return checkout


@pytest.fixture
def built(built_once: Checkout, tmp_path: Path) -> Checkout:
    """A checkout that has been used; moved from where it was, which must not matter."""
    root = tmp_path / "another checkout"
    shutil.copytree(built_once.root, root, symlinks=True)
    return Checkout(root=root)


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Raises ``AssertionError`` when the condition does not hold within the deadline."""
    deadline = Deadline(DEADLINE_S)
    while not condition():
        assert not deadline.passed, f"{what}: not within {deadline}"
        time.sleep(0.02)
