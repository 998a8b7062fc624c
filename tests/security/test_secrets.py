"""Secrets: one of each source, runs that succeed and fail at the highest verbosity, zero traces.

The same over real hosts, for one source, is in tests/hosts/launching/test_runs.py.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli import main as main_module
from orchestrator.cli.main import main
from tests.architecture.source import ROOT
from tests.contracts.agent.attempts import command_lines
from tests.security.conftest import MakeSshd
from tests.security.looking import files_below, leaking_files, leaks
from tests.time_limits import Deadline, communicate, wait_for_exit

pytestmark = pytest.mark.processes

Capture = pytest.CaptureFixture[str]
WriteCluster = Callable[..., Path]

# Quotes and signs make their encoded forms differ from themselves.
SECRETS = {
    "LISTED": "listed-cAnArY/+?'\"1",
    "FROM_INVENTORY": "inventory-cAnArY/+?&2",
    "UNLISTED": "unlisted-cAnArY/+?%3",
    "SSH_AUTH_SOCK": "/nonexistent/socket-cAnArY-4/agent",
    "HTTP_PASSWORD": "http-cAnArY:5@",
}
RANK = """
import hashlib, os, sys, time
from pathlib import Path
for name in ("LISTED", "FROM_INVENTORY"):
    print(hashlib.sha256(os.environ[name].encode()).hexdigest(), flush=True)
print("unlisted" if "UNLISTED" in os.environ else "apart", flush=True)
deadline = time.monotonic() + 600
while not Path(sys.argv[1]).exists() and time.monotonic() < deadline:
    time.sleep(0.02)
if sys.argv[2] == "fail":
    token = os.environ["LISTED"]  # a local of the frame that fails
    raise RuntimeError("no luck")
"""


def wait_for(path: Path, count: int) -> None:
    deadline = Deadline(60)
    while not path.is_file() or path.read_bytes().count(b"\n") < count:
        assert not deadline.passed, f"{path} has not {count} lines"
        time.sleep(0.05)


@pytest.mark.parametrize("ending", ["succeed", "fail"])
@pytest.mark.parametrize("way", [" --json", " --color=always", "/bin/bash --json"])
def test_no_trace_of_any_secret(
    way: str, ending: str, make_sshd: MakeSshd, write_cluster: WriteCluster, tmp_path: Path
) -> None:
    """They arrive; on both streams, in every file of both sides and in every process list:
    nothing, plain or encoded.
    """
    shell, _, view = way.partition(" ")
    project, home, node, go = (tmp_path / name for name in ("project", "home", "node", "go"))
    project.mkdir()
    (project / "rank.py").write_text(RANK)
    env = {"FROM_INVENTORY": {"secret": "FROM_INVENTORY"}}
    fields = {"gpus": 0, "python": sys.executable, "workdir": str(node), "env": env}
    server = make_sshd(shell) if shell else None
    cluster = write_cluster(server, "asyncssh" if shell else "local", **fields)
    words = ["run", "-C", str(cluster), "--run-id", "r1", "--launcher", "direct", "--verbose"]
    words += ["--follow", "--env", "LISTED", view]
    coordinator = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *words, "--", "rank.py", str(go), ending],
        cwd=project,
        env={**os.environ, **SECRETS, "PYTHONPATH": str(ROOT), "ORCHESTRATE_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        log = home / "runs" / "r1" / "logs" / "n1" / "rank-0.out"
        wait_for(log, 3)
        visible = b"\n".join(command_lines())
        while_running = leaking_files(SECRETS.values(), home, node, project)
        go.touch()
        out, err = communicate(coordinator, 60)
    finally:
        coordinator.kill()
        wait_for_exit(coordinator, 10)

    assert coordinator.returncode == (0 if ending == "succeed" else 1), err.decode()
    digests = [hashlib.sha256(SECRETS[n].encode()).hexdigest() for n in ("LISTED", *env)]
    assert log.read_text().split() == [*digests, "apart"]
    assert b"rank.py" in visible
    assert leaks(SECRETS.values(), visible) == []
    assert leaks(SECRETS.values(), out + err) == []
    assert while_running == {}
    assert leaking_files(SECRETS.values(), home, node, project) == {}
    names = {path.name for path in files_below(home, node)}
    assert names >= {"request.json", "plan.json", "journal.jsonl", "report.html", "report.md"}


def test_no_secret_in_a_plan(
    write_cluster: WriteCluster,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    """`plan` and `cluster show`, for people and for machines."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    env = {"FROM_INVENTORY": {"secret": "FROM_INVENTORY"}}
    place = {"gpus": 0, "python": sys.executable, "workdir": str(tmp_path / "node")}
    cluster = str(write_cluster(None, "local", env=env, **place))
    for more in ([], ["--json"]):
        assert main(["plan", "-C", cluster, "--env", "LISTED", *more, "--", "true"]) == 0
        assert main(["cluster", "show", cluster, *more]) == 0
        out, err = capsys.readouterr()
        assert "LISTED" in out
        assert "***" in out
        assert leaks(SECRETS.values(), (out + err).encode()) == []


def test_no_secret_in_a_refusal(
    write_cluster: WriteCluster, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """A connection that cannot be had names neither the agent's socket nor anything else."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    for transport in ("asyncssh", "paramiko"):
        cluster = write_cluster(None, transport, ssh="127.0.0.1", port=1)
        assert main(["exec", "-C", str(cluster), "--", "true"]) == 4
        out, err = capsys.readouterr()
        assert "not reached" in err
        assert leaks(SECRETS.values(), (out + err).encode()) == []


def test_no_secret_in_the_log_of_a_bug(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """The text of an exception, its cause and its notes are masked, whatever they quote."""
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)

    def fail(**_: object) -> None:
        held = dict(SECRETS)  # a local of the frame
        try:
            raise ValueError(f"cannot use {held['LISTED']} nor {held['FROM_INVENTORY']!r}")
        except ValueError as error:
            error.add_note(json.dumps(held))
            raise RuntimeError(f"gave up on {held['SSH_AUTH_SOCK']}") from error

    monkeypatch.setattr(main_module.cli, "main", fail)

    assert main(["run", "--json"]) == 70

    out, err = capsys.readouterr()
    (kept,) = (tmp_path / "home" / "errors").iterdir()
    assert "RuntimeError: gave up on $SSH_AUTH_SOCK" in kept.read_text()
    assert leaks(SECRETS.values(), (out + err).encode()) == []
    assert leaking_files(SECRETS.values(), tmp_path) == {}


@pytest.mark.parametrize("name", SECRETS)
def test_the_forms_are_found(name: str) -> None:
    """What looks for secrets does find them, in every wrapping that it knows."""
    secret = SECRETS[name]
    for shift in range(3):
        around = b"\1" * shift + secret.encode() + b"\2" * 5
        assert leaks([secret], b"xx" + base64.b64encode(around) + b"xx")
    assert leaks([secret], urllib.parse.quote(secret, safe="").encode())
    assert leaks([secret], json.dumps({"a": secret}).encode())
    assert not leaks([secret], b"nothing of it")
