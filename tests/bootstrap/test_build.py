"""An environment is built once, as a whole or not at all, whatever happens on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.bootstrap.conftest import Checkout, wait_until
from tests.time_limits import communicate, scaled

pytestmark = pytest.mark.processes

# A build backend that needs nothing from an index: it reports its start, and waits for a permit.
BACKEND = """
import pathlib, time, zipfile

HERE = pathlib.Path(__file__).parent
FILES = {
    "slow.py": "",
    "slow-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: slow\\nVersion: 1.0\\n",
    "slow-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\n"
    "Tag: py3-none-any\\n",
    "slow-1.0.dist-info/RECORD": "",
}

def build_wheel(directory, config_settings=None, metadata_directory=None):
    (HERE / "started").touch()
    deadline = time.monotonic() + 900
    while not (HERE / "permit").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    name = "slow-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(directory, name), "w") as wheel:
        for file, text in FILES.items():
            wheel.writestr(file, text)
    return name
"""
PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowPackage:
    """A package whose installation stops half-way until it is permitted to go on."""

    folder: Path

    def started(self) -> bool:
        return (self.folder / "started").exists()

    def permit(self) -> None:
        (self.folder / "permit").touch()


@pytest.fixture
def slow(fresh: Checkout, tmp_path: Path) -> SlowPackage:
    """The fresh checkout's lock asks for this package."""
    folder = tmp_path / "slow"
    folder.mkdir()
    (folder / "backend.py").write_text(BACKEND)
    (folder / "pyproject.toml").write_text(PYPROJECT)
    fresh.lock.write_text(f"slow @ {folder.as_uri()}\n")
    return SlowPackage(folder=folder)


def test_two_that_start_at_once_build_one_environment(fresh: Checkout, slow: SlowPackage) -> None:
    """The second says that it waits, and for whom; both then run from the same environment."""
    first = fresh.start()
    wait_until(slow.started, "the first is installing")
    second = fresh.start()
    assert second.stderr is not None
    waiting = second.stderr.readline()
    builder = fresh.builder()
    slow.permit()
    (first_out, first_err), (second_out, _) = (communicate(p, 60) for p in (first, second))

    assert f"waiting for process {builder}" in waiting
    assert (first.returncode, second.returncode) == (7, 7), first_err
    assert json.loads(first_out)["prefix"] == json.loads(second_out)["prefix"]
    assert len(fresh.environments()) == 1


def test_a_changed_lock_builds_anew_and_leaves_the_old(built: Checkout) -> None:
    """What an earlier run may be using stays, and the user is told where it is."""
    (old,) = built.environments()
    built.lock.write_text("# something else\n")

    done = built.run()

    assert done.returncode == 7
    assert json.loads(done.stdout)["prefix"] != str(old)
    assert f"    {old}\n" in done.stderr
    assert old in built.ready()


def test_a_lost_interpreter_is_replaced(built: Checkout) -> None:
    """After an upgrade removed the Python that it was built with, the environment is rebuilt."""
    (environment,) = built.environments()
    (environment / "bin" / "python").unlink()
    (environment / "bin" / "python").symlink_to("/nowhere/python3")

    done = built.run()

    assert done.returncode == 7, done.stderr
    assert built.ready() == [environment]


def test_a_killed_build_is_neither_used_nor_joined(fresh: Checkout, slow: SlowPackage) -> None:
    """After kill -9, what it started keeps others out until it is gone; then all begins afresh."""
    first = fresh.start()
    wait_until(slow.started, "the first is installing")
    os.kill(fresh.builder(), signal.SIGKILL)
    communicate(first, 60)
    assert first.returncode == 128 + signal.SIGKILL
    assert len(fresh.environments()) == 1, "half an environment is left"
    assert fresh.ready() == []

    second = fresh.start()
    assert second.stderr is not None
    waiting = second.stderr.readline()
    slow.permit()
    _, stderr = communicate(second, 60)

    assert "waiting for process" in waiting
    assert second.returncode == 7, stderr
    assert "building" in stderr
    assert len(fresh.ready()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_build_stops_what_it_started(
    fresh: Checkout, slow: SlowPackage, number: signal.Signals
) -> None:
    """The status tells the signal; no installer goes on in the background."""
    first = fresh.start()
    wait_until(slow.started, "the first is installing")
    os.kill(fresh.builder(), number)
    communicate(first, 60)

    assert first.returncode == 128 + number
    assert fresh.ready() == []
    wait_until(lambda: not running_below(fresh.root), "the installer is gone")


def running_below(root: Path) -> list[str]:
    """The command lines that name a file of the checkout."""
    listing = subprocess.run(
        ["ps", "-eo", "args"], stdout=subprocess.PIPE, text=True, check=True, timeout=scaled(30)
    )
    return [line for line in listing.stdout.splitlines() if str(root) in line]


def test_a_failed_installation_says_why_and_where(fresh: Checkout) -> None:
    """Exit 2 with pip's last lines and the log; the next call, with the cause removed, succeeds."""
    fresh.lock.write_text("orchestrate-no-such-package==1.0\n")

    failed = fresh.run()
    (log,) = fresh.root.glob(".venv/*.log")
    fresh.lock.write_text("# nothing\n")
    repaired = fresh.run()

    assert failed.returncode == 2
    assert failed.stdout == ""
    assert "No matching distribution found for orchestrate-no-such-package==1.0" in failed.stderr
    assert str(log) in failed.stderr
    assert repaired.returncode == 7


def test_a_python_without_ensurepip_is_explained(fresh: Checkout, tmp_path: Path) -> None:
    """Debian splits Python; the message names the package that brings the missing part."""
    stripped = tmp_path / "python3"
    hide = 'import runpy, sys; sys.modules["ensurepip"] = None; sys.argv = sys.argv[1:]; '
    run = 'runpy.run_path(sys.argv[0], run_name="__main__")'
    stripped.write_text(
        f"#!/bin/sh\nif [ $1 = -I ]; then shift; set -- -I -c '{hide}{run}' \"$@\"; fi\n"
        f'exec "{sys.executable}" "$@"\n'
    )
    stripped.chmod(0o755)

    done = fresh.run(ORCHESTRATE_PYTHON=str(stripped))

    assert done.returncode == 2
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"apt install python{version}-venv" in done.stderr
    assert fresh.environments() == []
