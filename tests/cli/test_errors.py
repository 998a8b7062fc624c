"""Bad input ends with exit code 2, a place, the nearest valid name, and nothing contacted."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli import main as main_module
from orchestrator.cli.main import main
from orchestrator.cli.outermost import unusable_home, unusable_path
from tests.architecture.source import ROOT
from tests.time_limits import wait_for_exit


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder to work in, with one workload."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clusters").mkdir()
    (tmp_path / "workloads" / "demo").mkdir(parents=True)
    (tmp_path / "workloads" / "demo" / "workload.yaml").write_text("name: demo\nentry: x.py\n")
    (tmp_path / "workloads" / "demo" / "x.py").touch()
    (tmp_path / "workloads" / "counted").mkdir()
    (tmp_path / "workloads" / "counted" / "x.py").touch()
    (tmp_path / "workloads" / "counted" / "workload.yaml").write_text(
        "name: counted\nentry: x.py\nparameters: {n: {type: int, default: 3}}\n"
    )
    (tmp_path / "odd.yaml").write_text("electricity: [{name: home}]\n")
    return tmp_path


@pytest.mark.parametrize(
    "words,expected",
    [
        (
            ["cluster", "show", "nebius2x9"],
            ["unknown cluster 'nebius2x9'", "did you mean 'nebius2x8"],
        ),
        (["cluster", "show", "./none.yaml"], ["none.yaml: cannot be read: No such file"]),
        (
            ["plan", "--cluster", "local", "--workload", "counted", "--set", "n=abc"],
            ["found the text 'abc'", "next: orchestrate workload show counted"],
        ),
        (
            ["plan", "--cluster", "local", "--workload", "demo", "--prices", "none.yaml"],
            ["none.yaml: cannot be read: No such file", "why: --prices", "--prices default"],
        ),
        (
            ["plan", "--cluster", "local", "--workload", "demo", "--prices", "odd.yaml"],
            ["odd.yaml:1", "why: --prices", "next: write it as docs/energy.md shows"],
        ),
        (["workload", "show", "demmo"], ["unknown workload 'demmo'", "did you mean 'demo'?"]),
        (["plan", "-C", "local", "--ray-address", "10.0.0.1", "x"], ["is not HOST:PORT"]),
        (
            ["plan", "-C", "local", "--launcher", "torchrun", "--ray-address", "a:1", "x"],
            ["--ray-address is for --launcher ray, not torchrun"],
        ),
        (["exec", "--cluster", "local", "--nodes", " ", "true"], ["--nodes is empty"]),
        (["cluster", "show", "local", "--nodes", "!local[1-2]"], ["no worker of cluster local"]),
        (["cluster", "show", "local", "--nodes", "locl1"], ["did you mean 'local1'?"]),
        (["clustr"], ["no such command: 'clustr'; did you mean 'cluster'?"]),
        (["cluster", "lst"], ["lst", "list"]),
        (["cluster", "list", "--jsn"], ["--jsn", "did you mean '--json'?"]),
        (["run", "--pod-selecter", "a=b"], ["--pod-selecter'; did you mean '--pod-selector'?\n"]),
        (["run", "--rubbish"], ["No such option '--rubbish'.\n"]),
        (["monitor", "expert"], ["No such command 'expert'; did you mean 'experts'?\n"]),
        (["cluster", "import", "excel", "x"], ["hostfile", "ansible", "ssh-config", "slurm"]),
        (["cluster", "import", "hostfile", "none"], ["none: cannot be read"]),
    ],
)
def test_mistakes_on_the_command_line(
    words: list[str], expected: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """stderr says what and what next; stdout stays empty."""
    assert main(words) == 2

    out, err = capsys.readouterr()
    assert out == ""
    assert all(part in err for part in expected), err


def test_the_folders_that_were_searched_are_named_in_full(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A relative path would leave open which folder it is relative to."""
    assert main(["workload", "show", "demmo"]) == 2
    assert f"searched {project}/workloads, " in capsys.readouterr().err


@pytest.mark.parametrize(
    "text,expected",
    [
        ("name: c\nnodes: [a\n", "clusters/c.yaml:2:8: the bracket [ is not closed"),
        ("name: c\nname: d\nnodes: [a]\n", "clusters/c.yaml:2:1: key 'name' is given twice"),
        ("name: c\nnods: [a]\nnodes: [a]", "clusters/c.yaml:2:1: unknown key 'nods'"),
        (
            "name: c\nnodes: [{name: a, port: no}]\n",
            "clusters/c.yaml:2:25: nodes[0].port: expected",
        ),
    ],
)
def test_mistakes_in_an_inventory(
    project: Path, text: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """file:line:column, relative to where the user is."""
    (project / "clusters" / "c.yaml").write_text(text)

    assert main(["cluster", "validate", "c"]) == 2
    assert f"orchestrate: {expected}" in capsys.readouterr().err


def test_a_huge_file_is_refused_before_it_is_read(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its size does not matter, because only the beginning is read."""
    huge = project / "huge.yaml"
    with huge.open("wb") as file:
        file.truncate(100 * 1000 * 1000 * 1000)

    assert main(["cluster", "validate", "huge.yaml"]) == 2
    assert "huge.yaml: larger than 1024 KiB" in capsys.readouterr().err


def test_a_pipe_in_the_place_of_a_file_does_not_hang(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only regular files are inventories."""
    os.mkfifo(project / "pipe.yaml")

    assert main(["cluster", "validate", "./pipe.yaml"]) == 2
    assert "pipe.yaml: not a regular file" in capsys.readouterr().err


def test_errors_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json stdout ends with exactly one result, whichever verb failed."""
    assert main(["cluster", "show", "nebius2x9", "--json"]) == 2

    record = json.loads(capsys.readouterr().out)
    assert (record["type"], record["status"], record["exit_code"]) == ("result", "failed", 2)
    assert record["failure"]["id"] == "cluster.unknown"
    assert "nebius2x8" in record["failure"]["remedy"]


def test_command_line_mistakes_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    """The same for what click refuses."""
    assert main(["cluster", "show", "--json"]) == 2

    record = json.loads(capsys.readouterr().out)
    assert (record["type"], record["failure"]["id"]) == ("result", "usage.command-line")


def test_a_run_that_never_began_still_has_a_result_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`run --json` promises exactly one last line of type result, also in its short form."""
    assert main(["--json", "--no-such-option"]) == 2

    lines = capsys.readouterr().out.splitlines()
    record = json.loads(lines[-1])
    assert len(lines) == 1
    assert (record["type"], record["status"], record["exit_code"]) == ("result", "failed", 2)
    assert "--no-such-option" in record["failure"]["cause"]


@pytest.mark.parametrize(
    "words",
    [
        ["migrate", "verify", "old", "--against", "folder"],
        ["migrate", "verify", "old", "--against", "a" * 5000],
        ["monitor", "experts", "a" * 5000],
        ["model", "calibrate", "--from", "a" * 5000],
        ["diagnose", "a" * 5000],
    ],
    ids=lambda words: f"{words[0]} {words[-1][:6]}",
)
def test_a_path_that_the_system_refuses_is_no_bug(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    (tmp_path / "folder").mkdir()

    assert main(words) == 2

    err = capsys.readouterr().err
    assert words[-1][:200] in err
    assert len(err) < 1000
    assert not (tmp_path / "home" / "errors").exists()


def test_a_path_of_our_own_is_a_bug(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ORCHESTRATE_HOME", str(project / "home"))
    monkeypatch.setattr(main_module.cli, "main", lambda **_: Path("/proc/self/none").read_text())
    assert main(["cluster", "list"]) == 70
    assert "FileNotFoundError" in capsys.readouterr().err


def test_a_bug_leaves_its_traceback_in_a_file(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 70, the path in the message, the newest files kept."""
    monkeypatch.setenv("ORCHESTRATE_HOME", str(project / "home"))
    monkeypatch.setattr(main_module.cli, "main", _raise_zero_division)
    for _ in range(25):
        assert main(["cluster", "list", "--json"]) == 70

    out, err = capsys.readouterr()
    kept = sorted((project / "home" / "errors").iterdir())
    assert len(kept) == 20
    assert str(kept[-1]) in err
    assert "ZeroDivisionError" in kept[-1].read_text()
    assert json.loads(out.splitlines()[-1])["failure"]["id"] == "internal"


def _raise_zero_division(**_: object) -> None:
    raise ZeroDivisionError("a bug")


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An interrupt is no traceback, and a result line says that the run was stopped."""
    monkeypatch.setattr(main_module.cli, "main", _interrupt)

    assert main(["run", "--json"]) == 130
    out, err = capsys.readouterr()
    assert err == "orchestrate: interrupted\n"
    assert json.loads(out)["status"] == "stopped"


def _interrupt(**_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.processes
def test_a_reader_that_goes_away_is_no_error_message(project: Path) -> None:
    """`orchestrate ... | head` ends quietly."""
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "cluster", "schema"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    try:
        code = wait_for_exit(process, 60)
        error = process.stderr.read()
    finally:
        process.stderr.close()
        process.kill()

    assert (code, error) == (141, b"")


@pytest.mark.parametrize(
    "number, filename, refused",
    [
        (errno.ENOSPC, None, True),
        (errno.EROFS, "/srv/orchestrate/nightly", True),
        (errno.EACCES, "/srv/orchestrate/nightly/jw3", True),
        (errno.EACCES, "/etc/shadow", False),
        (errno.ENOENT, "/srv/orchestrate/runs/x", False),
    ],
)
def test_a_home_that_cannot_be_written_is_no_bug(
    number: int, filename: str | None, refused: bool
) -> None:
    error = OSError(number, os.strerror(number), filename)

    failure = unusable_home(error, {"ORCHESTRATE_HOME": "/srv/orchestrate"})

    assert (failure is not None) is refused
    if failure is not None:
        assert failure.exit_code == 4
        assert failure.where == (filename or "/srv/orchestrate")


def test_an_error_about_a_descriptor_names_no_path() -> None:
    """The system calls that take one leave its number where a path would be."""
    error = OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), 7)

    assert unusable_path(error, ["show", "."]) is None
    assert unusable_home(error, {}) is None
