"""Where the coordinator keeps its files: nobody else may stand in the way.

The node's work directory is held to the same in tests/contracts/agent/base/test_paths.py.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.adapters.store.atomic_files import write_atomic
from orchestrator.cli.main import main
from tests.security.looking import files_below

pytestmark = pytest.mark.processes

STRANGER = 12345
only_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="hardware: only root can make a stranger's files"
)
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where ORCHESTRATE_HOME points; nothing is there yet."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    node = {"name": "n1", "transport": "local", "gpus": 0, "workdir": str(tmp_path / "node")}
    (project / "c.yaml").write_text(json.dumps({"name": "c", "nodes": [node]}))
    place = tmp_path / "above" / "home"
    place.parent.mkdir()
    monkeypatch.setenv("ORCHESTRATE_HOME", str(place))
    return place


def of_a_stranger(path: Path) -> None:
    os.chown(path, STRANGER, STRANGER, follow_symlinks=False)


def home_of_a_stranger(home: Path) -> None:
    home.mkdir()
    of_a_stranger(home)


def link_of_a_stranger(home: Path) -> None:
    theirs = home.parent / "theirs"
    theirs.mkdir()
    home.symlink_to(theirs)
    of_a_stranger(home)


def link_to_a_stranger(home: Path) -> None:
    theirs = home.parent / "theirs"
    theirs.mkdir()
    of_a_stranger(theirs)
    home.symlink_to(theirs)


def runs_of_a_stranger(home: Path) -> None:
    (home / "runs").mkdir(parents=True)
    of_a_stranger(home / "runs")


def runs_are_a_link(home: Path) -> None:
    home.mkdir()
    theirs = home.parent / "theirs"
    theirs.mkdir()
    (home / "runs").symlink_to(theirs)
    of_a_stranger(home / "runs")


def parent_for_everybody(home: Path) -> None:
    home.parent.chmod(0o777)


def home_for_everybody(home: Path) -> None:
    home.mkdir()
    home.chmod(0o777)


@only_root
@pytest.mark.parametrize(
    "prepare",
    [
        home_of_a_stranger,
        link_of_a_stranger,
        link_to_a_stranger,
        runs_of_a_stranger,
        runs_are_a_link,
        parent_for_everybody,
        home_for_everybody,
    ],
)
def test_a_home_that_others_hold_is_refused(
    prepare: Callable[[Path], None], home: Path, capsys: Capture
) -> None:
    """Exit 2 with the place; nothing of a run is written there, and no node is asked."""
    prepare(home)
    assert main(["run", "-C", "c.yaml", "--env", "X=canary", "--", "true"]) == 2
    err = capsys.readouterr().err
    assert "not a place for files of yours" in err
    assert "ORCHESTRATE_HOME" in err
    assert not [path for path in files_below(home.parent) if b"canary" in path.read_bytes()]


def test_a_sticky_parent_and_a_link_of_our_own_are_fine(home: Path) -> None:
    """/tmp is for everybody, and a small disk may point to a bigger one."""
    home.parent.chmod(0o1777)
    disk = home.parent / "disk"
    disk.mkdir()
    home.symlink_to(disk)
    assert main(["run", "-C", "c.yaml", "--run-id", "r1", "--", "true"]) == 0
    assert (disk / "runs" / "r1" / "result.json").is_file()


def test_what_a_run_keeps_is_private(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the umask: no folder of a run can be entered by others, no file is executable."""
    before = os.umask(0)
    try:
        assert main(["run", "-C", "c.yaml", "--run-id", "r1", "--", "sh", "-c", "echo x"]) == 0
    finally:
        os.umask(before)
    run = home / "runs" / "r1"
    assert stat.S_IMODE(run.stat().st_mode) == 0o700
    for path in files_below(run):
        assert not path.stat().st_mode & (0o111 | stat.S_ISUID | stat.S_ISGID), path


def test_a_link_in_the_place_of_a_file_is_replaced(home: Path, tmp_path: Path) -> None:
    """A result is put in place by renaming: whatever a link there points to stays as it is."""
    assert main(["run", "-C", "c.yaml", "--run-id", "r1", "--", "true"]) == 0
    precious = tmp_path / "precious"
    precious.write_text("keep")
    result = home / "runs" / "r1" / "result.json"
    content = result.read_bytes()
    result.unlink()
    result.symlink_to(precious)
    write_atomic(result, content)

    assert precious.read_text() == "keep"
    assert not result.is_symlink()
