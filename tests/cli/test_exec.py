"""exec over real local processes: folded outputs, streams, exit codes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.cli.main import main
from tests.architecture.source import ROOT
from tests.contracts.transport.conditions import is_alive
from tests.hosts.running import wait_until

pytestmark = pytest.mark.processes

INVENTORY = """
name: here
defaults: {transport: local}
nodes: ["n[1-3]"]
"""
MIXED = """
name: mixed
nodes:
  - {name: n1, transport: local}
  - {name: gone, ssh: 127.0.0.1, port: 1}
"""


@pytest.fixture
def inventory(tmp_path: Path) -> str:
    path = tmp_path / "here.yaml"
    path.write_text(INVENTORY)
    return str(path)


def python(code: str) -> list[str]:
    return ["--", sys.executable, "-c", code]


def test_equal_outputs_are_shown_once(inventory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Three nodes that say the same are one block with folded names."""
    assert main(["exec", "-C", inventory, *python("print('hi'); print('there')")]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == ["-" * 15, "n[1-3] (3)", "-" * 15, "hi", "there"]
    assert captured.err == ""


def test_arguments_arrive_exactly(inventory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Spaces, quotes and dollars are not touched; no shell is in between."""
    words = python("import sys; print(sys.argv[1:])")
    assert main(["exec", "-C", inventory, "--nodes", "n1", *words, "a b", "$HOME'\"", "--x"]) == 0
    assert repr(["a b", "$HOME'\"", "--x"]) in capsys.readouterr().out


@pytest.mark.parametrize("line, hinted", [("hostname; uptime", True), ("no-such-program", False)])
def test_a_line_for_a_shell_is_said_to_need_one(
    line: str, hinted: bool, inventory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["exec", "--cluster", inventory, "--", line]) == 127
    assert (f"-- sh -c '{line}'" in capsys.readouterr().err) is hinted


def test_prefix_streams_lines(inventory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each line has its node's name; standard error stays standard error; escapes are gone."""
    code = "import sys; print('o\\x1b[31mut'); print('err', file=sys.stderr)"
    assert main(["exec", "-C", inventory, "--prefix", *python(code)]) == 0
    captured = capsys.readouterr()
    assert sorted(captured.out.splitlines()) == ["n1: out", "n2: out", "n3: out"]
    assert sorted(captured.err.splitlines()) == ["n1: err", "n2: err", "n3: err"]


def test_the_highest_code_wins(inventory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit codes are told with folded names; the command's own is the highest."""
    assert main(["exec", "-C", inventory, *python("raise SystemExit(7)")]) == 7
    assert "n[1-3] (3): exited with code 7" in capsys.readouterr().err


def test_a_command_that_does_not_end_is_ended(
    inventory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The time limit is kept and told; its exit code is that of every time limit."""
    words = ["exec", "-C", inventory, "--nodes", "n1", "--timeout", "0.5"]
    assert main([*words, *python("import time; time.sleep(60)")]) == 124
    assert "n1: did not finish within 0.5 s" in capsys.readouterr().err


@pytest.mark.parametrize("number, code", [("SIGTERM", 143), ("SIGHUP", 130), ("SIGINT", 130)])
def test_a_signal_ends_what_runs_on_nodes(
    number: str, code: int, inventory: str, tmp_path: Path
) -> None:
    """A command that writes nothing would never notice that its connection is gone."""
    shown = tmp_path / "pid"
    command = (
        f"import os, pathlib, signal; shown = pathlib.Path({str(shown)!r}); "
        "new = shown.with_suffix('.new'); new.write_text(str(os.getpid())); new.rename(shown); "
        "signal.pause()"
    )
    words = ["exec", "-C", inventory, "--nodes", "n1", *python(command)]
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *words], cwd=ROOT, stderr=subprocess.PIPE
    )
    try:
        wait_until("the command", shown.exists)
        process.send_signal(signal.Signals[number])
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()

    assert process.returncode == code
    assert err.strip().startswith(b"orchestrate: interrupted")
    assert not is_alive(int(shown.read_text()))


@pytest.mark.parametrize(
    "words", [["probe"], ["doctor"], ["sync"], ["plan"], ["clean", "--caches"]], ids=" ".join
)
def test_a_signal_ends_whatever_asks_nodes(words: list[str], tmp_path: Path) -> None:
    """It closes its connections and says so, as Ctrl-C does, instead of dying on the spot."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        where = f"{{name: n1, ssh: 127.0.0.1, port: {server.getsockname()[1]}}}"
        (tmp_path / "mute.yaml").write_text(f"name: mute\nnodes:\n  - {where}\n")
        (tmp_path / "job.py").touch()
        command = [*words, "-C", "mute.yaml", *(["job.py"] if words == ["plan"] else [])]
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "ORCHESTRATE_HOME": str(tmp_path / "home")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            connection, _ = server.accept()
            with connection:
                process.send_signal(signal.SIGTERM)
                _, err = process.communicate(timeout=60)
        finally:
            process.kill()

    assert (process.returncode, err.decode()) == (143, "orchestrate: interrupted by SIGTERM\n")


def test_nodes_for_machines(inventory: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json a line for each node, then exactly one result, also where nothing ran."""
    code = "import os; os.kill(os.getpid(), 9)"
    assert main(["exec", "-C", inventory, "--json", "--nodes", "n1,n2", *python(code)]) == 137
    *nodes, result = map(json.loads, capsys.readouterr().out.splitlines())

    assert sorted(each["node"] for each in nodes) == ["n1", "n2"]
    assert {(each["type"], each["state"], each["exit_code"]) for each in nodes} == {
        ("node", "ended", 137)
    }
    assert (result["type"], result["status"], result["exit_code"]) == ("result", "failed", 137)
    assert result["failure"]["node"] == "n1", "the first by name, whoever ended first"

    assert main(["exec", "-C", inventory, "--json", *python("print('hi')")]) == 0
    *nodes, result = map(json.loads, capsys.readouterr().out.splitlines())
    assert [each["stdout"] for each in nodes] == ["hi\n"] * 3
    assert (result["status"], result["failure"]) == ("succeeded", None)

    assert main(["exec", "-C", "nowhere", "--json", "--", "true"]) == 2
    (result,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert (result["type"], result["failure"]["id"]) == ("result", "cluster.unknown")


def test_an_unreachable_node_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can be reached answers; the exit code is 4."""
    path = tmp_path / "mixed.yaml"
    path.write_text(MIXED)
    assert main(["exec", "-C", str(path), *python("print('here')")]) == 4
    captured = capsys.readouterr()
    assert "here" in captured.out
    assert "gone: not reached" in captured.err


BEHIND_SSH = """
name: lab
defaults: {ssh_config: ssh_config}
nodes: [n1, n2]
"""


@pytest.mark.parametrize("verb", ["exec", "probe", "sync", "plan", "run"])
@pytest.mark.parametrize("included", [False, True])
def test_a_bad_line_of_ssh_config_is_found_before_any_contact(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str, included: bool
) -> None:
    """With its file and line, whichever host it is about; as `ssh` refuses the whole file."""
    bad = "Host other\n  HostName 192.0.2.11\n  Port abc\n"
    (tmp_path / "more").write_text(bad)
    (tmp_path / "ssh_config").write_text(f"Include {tmp_path}/more\n" if included else bad)
    (tmp_path / "lab.yaml").write_text(BEHIND_SSH)
    words = [] if verb in {"probe", "sync"} else ["--", "hostname"]

    assert main([verb, "-C", str(tmp_path / "lab.yaml"), *words]) == 2

    shown = capsys.readouterr().err
    assert "bad port 'abc'" in shown
    assert f"{tmp_path / ('more' if included else 'ssh_config')}:3" in shown
