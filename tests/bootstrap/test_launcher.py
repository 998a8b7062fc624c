"""Once built, `scripts/orchestrate` costs no more than the start of Python, from anywhere."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.bootstrap.conftest import Checkout, create_checkout, environment
from tests.time_limits import scaled

pytestmark = pytest.mark.processes


def test_a_built_environment_is_used_without_a_word(built: Checkout) -> None:
    """Arguments and the exit status pass through unchanged, and stderr stays empty."""
    done = built.run("run", "--set", "a b=$c", "")

    assert (done.returncode, done.stderr) == (7, "")
    assert json.loads(done.stdout)["argv"] == ["orchestrate", "run", "--set", "a b=$c", ""]


def test_the_everyday_path_starts_no_other_python(built: Checkout, tmp_path: Path) -> None:
    """Interpreters on the PATH are left alone when the environment is there."""
    trace = tmp_path / "started"
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        write_program(tmp_path / "bin" / name, f'#!/bin/sh\necho "$0" >> "{trace}"\nexit 1\n')
    path = f"{tmp_path / 'bin'}:/usr/bin:/bin"

    done = built.run(ORCHESTRATE_PYTHON="", PATH=path)

    assert (done.returncode, done.stderr) == (7, "")
    assert not trace.exists()


@pytest.mark.parametrize("link", ["absolute", "relative", "chain"])
def test_symbolic_links_lead_to_the_checkout(built: Checkout, tmp_path: Path, link: str) -> None:
    """A link in the user's bin directory runs this checkout, from any working directory."""
    bin_directory = tmp_path / "my bin"
    bin_directory.mkdir()
    command = bin_directory / "orchestrate"
    if link == "absolute":
        command.symlink_to(built.launcher)
    elif link == "relative":
        command.symlink_to(Path("..") / built.launcher.relative_to(tmp_path))
    else:
        (bin_directory / "other").symlink_to(built.launcher)
        command.symlink_to("other")

    done = subprocess.run(
        ["orchestrate"],
        env=environment(PATH=f"{bin_directory}:/usr/bin:/bin"),
        cwd=bin_directory,
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )

    told = json.loads(done.stdout)
    assert done.returncode == 7
    assert Path(told["file"]).is_relative_to(built.root)
    assert told["cwd"] == str(bin_directory)


def test_the_working_directory_shadows_nothing(built: Checkout, tmp_path: Path) -> None:
    """A user's own folder called orchestrator, or module called json, is not imported."""
    create_checkout(tmp_path / "mine")
    (tmp_path / "mine" / "json.py").write_text("raise SystemExit(99)\n")

    done = subprocess.run(
        [str(built.launcher)],
        env=environment(),
        cwd=tmp_path / "mine",
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=False,
    )

    assert done.returncode == 7
    assert Path(json.loads(done.stdout)["file"]).is_relative_to(built.root)


def test_a_python_that_is_too_old_is_named(fresh: Checkout, tmp_path: Path) -> None:
    """The message says which Python was found, which is needed, and how to name another."""
    old = tmp_path / "python 3.9"
    write_program(old, "#!/bin/sh\ncase $2 in *exit*) exit 1 ;; *) echo 3.9.2 ;; esac\n")

    done = fresh.run(ORCHESTRATE_PYTHON=str(old))

    assert done.returncode == 2
    assert "Python 3.11 or newer is needed" in done.stderr
    assert f"{old} 3.9.2" in done.stderr
    assert "ORCHESTRATE_PYTHON=" in done.stderr


def test_no_python_at_all_is_said(fresh: Checkout, tmp_path: Path) -> None:
    """Interpreters that do not start, such as version managers' stubs, do not count as found."""
    for name in ("dirname", "cmp", "uname", "cat"):
        found = shutil.which(name)
        assert found is not None
        (tmp_path / name).symlink_to(found)
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        write_program(tmp_path / name, "#!/bin/sh\nexit 127\n")

    done = fresh.run(ORCHESTRATE_PYTHON="", PATH=str(tmp_path))

    assert done.returncode == 2
    assert "Python 3.11 or newer is needed; found none" in done.stderr
    assert not (fresh.root / ".venv").exists()


def write_program(path: Path, text: str) -> None:
    """An executable script."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
