"""What would travel is refused, or said, before a node is contacted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from tests.contracts.sync.trees import git, write_tree

pytestmark = pytest.mark.processes
PLAN = ["plan", "--offline", "-C", "local"]


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory with keys in it, and a store elsewhere."""
    home = write_tree(tmp_path / "home", {".ssh/id_lab": b"", "train.py": b"", "proj/job.py": b""})
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "store"))
    return home


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What is said when a command ends with exit code 2."""
    assert main(arguments) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "command", [[*PLAN, "--", "train.py"], ["run", "-C", "local", "--", "train.py"],
                ["sync", "-C", "local"], ["sync", "--dry-run"]], ids=lambda c: c[0]
)  # fmt: skip
def test_the_home_directory_is_no_project(
    own_home: Path,
    command: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A script that lies directly in it would take along all of it; so with the root folder."""
    monkeypatch.chdir(own_home)

    said = refusal(command, capsys)

    assert f"{own_home}: the folder that would travel to the nodes holds the home directory" in said
    assert "--workdir DIR" in said


def test_a_repository_of_dotfiles_is_no_project(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its root is the home directory: a folder below it is named instead."""
    git(own_home, "init", "--quiet")
    monkeypatch.chdir(own_home / "proj")

    assert "it is the git repository around" in refusal([*PLAN, "--", "job.py"], capsys)
    assert main([*PLAN, "--workdir", ".", "--", "job.py"]) == 0


@pytest.mark.parametrize("folder", ["/", "above"])
def test_what_holds_the_home_directory_is_no_project(
    own_home: Path, folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file system's root is refused even by name."""
    monkeypatch.chdir(own_home.parent if folder == "above" else folder)

    assert "holds the home directory" in refusal(["sync", "--dry-run"], capsys)
    assert "holds the home directory" in refusal(["sync", "--dry-run", "--workdir", "/"], capsys)


def test_a_home_directory_that_was_named_travels_without_its_keys(
    own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """People with a rented machine work there; the warning is said all the same."""
    assert main(["sync", "--dry-run", "--json", "--workdir", str(own_home)]) == 0

    record = json.loads(capsys.readouterr().out)
    own = [path for path in record["paths"] if not path.startswith(".orchestrate/kit/")]
    assert own == ["proj/job.py", "train.py"]
    assert "the home directory travels" in record["warnings"][0]
    assert record["skipped"][0]["rule"] == "default, private: .ssh"


def test_a_workload_in_the_home_directory_is_refused(
    own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would travel with its folder."""
    write_tree(own_home, {"workload.yaml": b"name: w\nsummary: s\nentry: train.py\nshape: rigid\n"})

    said = refusal([*PLAN, "-W", str(own_home)], capsys)

    assert "holds the home directory" in said


@pytest.mark.parametrize("command", [["plan", "--offline"], ["run"]], ids=lambda c: c[0])
@pytest.mark.parametrize("in_git", [True, False])
def test_a_script_that_a_rule_leaves_out_is_refused(
    own_home: Path,
    command: list[str],
    in_git: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With the rule and the line that brings it; which it does."""
    project = write_tree(own_home / "proj", {".gitignore": b"out/\n", "out/job.py": b""})
    if in_git:
        git(project, "init", "--quiet")
    monkeypatch.chdir(project)

    said = refusal([*command, "-C", "local", "--", "out/job.py"], capsys)
    assert "out/job.py is left out by .gitignore:1: out/: the nodes would not have it" in said
    assert "write !/out/job.py into .orchestrateignore" in said

    (project / ".orchestrateignore").write_text("!/out/job.py\n")
    assert main([*PLAN, "--", "out/job.py"]) == 0


def test_a_program_that_a_rule_leaves_out_is_refused(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same for what is no Python script, for a module and for the files of a workload."""
    project = write_tree(
        own_home / "proj", {".orchestrateignore": b"*.sh\n", "go.sh": b"#!/bin/sh"}
    )
    (project / "go.sh").chmod(0o755)
    monkeypatch.chdir(project)
    assert "go.sh is left out by .orchestrateignore:1: *.sh" in refusal(
        [*PLAN, "--", "./go.sh"], capsys
    )

    write_tree(project, {".gitignore": b"mod.py\n", "pkg/mod.py": b""})
    left_out = "pkg/mod.py is left out by .gitignore:1: mod.py: the nodes would not have it"
    assert left_out in refusal([*PLAN, "--", "-m", "pkg.mod"], capsys)

    workload = b"name: w\nsummary: s\nentry: work.py\nshape: rigid\n"
    folder = write_tree(project / "w", {"workload.yaml": workload, "work.py": b""})
    write_tree(folder, {".gitignore": b"work.py\n"})
    assert "work.py is left out by .gitignore:1" in refusal([*PLAN, "-W", str(folder)], capsys)


def test_a_file_that_an_argument_names_is_warned_about(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be read or written: that it is not on the nodes is said, and no more."""
    project = write_tree(own_home / "proj", {".gitignore": b"*.yaml\n", "conf/a.yaml": b""})
    monkeypatch.chdir(project)
    words = ["job.py", "--config=conf/a.yaml", "-x", "missing.yaml", "y" * 5000]

    assert main([*PLAN, "--json", "--", *words]) == 0

    (warning,) = json.loads(capsys.readouterr().out)["travels"]["warnings"]
    assert warning.startswith("conf/a.yaml is left out by .gitignore:1: *.yaml")
