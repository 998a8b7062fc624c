"""What a program on a node sees is what was written here: byte for byte, through every shell.

The transports alone are held to the same in tests/contracts/transport; here whole commands are.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.architecture.source import ROOT
from tests.forks import COMMANDS
from tests.security.conftest import MakeSshd
from tests.security.rows import ARGUMENTS
from tests.time_limits import communicate, scaled

pytestmark = pytest.mark.processes

WriteCluster = Callable[..., Path]
SHELLS = ["/bin/sh", "/bin/bash", "/bin/dash"]
WAYS = [("asyncssh", shell) for shell in SHELLS] + [("paramiko", "/bin/bash"), ("local", "")]

# Variables that change what programs load or call; none of them may travel by itself.
POISON = {
    "LD_PRELOAD": "/nonexistent/poison.so",
    "LD_AUDIT": "/nonexistent/audit.so",
    "BASH_ENV": "/nonexistent/poison.sh",
    "ENV": "/nonexistent/poison.sh",
    "PYTHONPATH": f"{ROOT}:/nonexistent/poison",
    "PYTHONSTARTUP": "/nonexistent/poison.py",
    "PERL5LIB": "/nonexistent/poison",
    "NODE_OPTIONS": "--require=/nonexistent/poison.js",
    "GIT_SSH_COMMAND": "touch poison",
    "GIT_DIR": "/nonexistent/poison",
    "BASH_FUNC_ls%%": "() { touch poison; }",
}


def orchestrate(
    words: Sequence[str], home: Path, cwd: Path, **env: str
) -> subprocess.CompletedProcess[str]:
    """A command as people start it; its standard error is the assertion's message."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "ORCHESTRATE_HOME": str(home), **env}
    process = COMMANDS.start(["-m", "orchestrator", *words], cwd, environ)
    try:
        out, err = communicate(process, 120)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(params=WAYS, ids=lambda way: "-".join(way).replace("/bin/", ""))
def cluster(
    request: pytest.FixtureRequest, make_sshd: MakeSshd, write_cluster: WriteCluster
) -> Path:
    """One node behind each kind of transport and each login shell."""
    transport, shell = request.param
    server = make_sshd(shell) if shell else None
    return write_cluster(server, transport)


def test_arguments_of_exec(cluster: Path, tmp_path: Path) -> None:
    """`exec` gives every malicious row to a program unchanged, and starts nothing else."""
    place = tmp_path / "a place\nwith $(touch canary)"
    place.mkdir()
    out = place / "seen"
    script = 'printf "%s\\0" "$@" > "$0"'
    words = ["exec", "-C", str(cluster), "--", "sh", "-c", script, str(out), *ARGUMENTS]

    done = orchestrate(words, tmp_path / "home", place)

    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert out.read_bytes() == b"".join(text.encode() + b"\0" for text in ARGUMENTS)
    assert [path.name for path in place.iterdir()] == ["seen"]


def test_the_environment_of_exec(cluster: Path, tmp_path: Path) -> None:
    """Nothing of the coordinator's own environment that decides what code runs arrives."""
    out = tmp_path / "seen"
    words = ["exec", "-C", str(cluster), "--", "sh", "-c", 'env -0 > "$0"', str(out)]

    done = orchestrate(words, tmp_path / "home", tmp_path, **POISON)

    assert done.returncode == 0, done.stderr
    seen = dict(item.split(b"=", 1) for item in out.read_bytes().split(b"\0")[:-1])
    assert b"PATH" in seen
    assert [name for name in POISON if name.encode() in seen] == []
    assert b"poison" not in out.read_bytes()


RANK = """
import json, os, sys
from pathlib import Path
seen = {"argv": sys.argv[1:], "env": dict(os.environ), "file": __file__}
Path(os.environ["ORCHESTRATE_OUTPUT_DIR"], "seen.json").write_text(json.dumps(seen))
"""
VALUES = {f"V{n}": text for n, text in enumerate(ARGUMENTS)}


@pytest.mark.parametrize("shell", ["", "/bin/bash", "/bin/dash"])
def test_arguments_and_environment_of_ranks(
    shell: str, make_sshd: MakeSshd, write_cluster: WriteCluster, tmp_path: Path
) -> None:
    """`run` likewise, from a project, to a work directory and with a script of odd names; only
    what is listed travels.
    """
    transport = "asyncssh" if shell else "local"
    fields = {
        "python": sys.executable,
        "workdir": str(tmp_path / "work dir'`touch canary`"),
        "gpus": 0,
        "env": {**VALUES, "GIT_SSH_COMMAND": "listed"},
    }
    cluster = write_cluster(make_sshd(shell) if shell else None, transport, **fields)
    project = tmp_path / "pro ject\n$(touch canary);'"
    script = project / "a b;$(touch canary).py"
    project.mkdir()
    script.write_text(RANK)
    (project / "new\nline `touch canary`.txt").write_text("kept")
    words = ["run", "-C", str(cluster), "--run-id", "r1", "--launcher", "direct"]
    words += ["--env", "BASH_ENV=listed", "--env", "LISTED=a 'b' $(touch canary)\n"]

    done = orchestrate(
        [*words, "--", script.name, *ARGUMENTS], tmp_path / "home", project, **POISON
    )

    assert done.returncode == 0, done.stderr
    collected = tmp_path / "home" / "runs" / "r1" / "artifacts" / "n1" / "seen.json"
    seen = json.loads(collected.read_text())
    assert seen["argv"] == ARGUMENTS
    assert {name: seen["env"].get(name) for name in VALUES} == VALUES
    assert seen["env"]["LISTED"] == "a 'b' $(touch canary)\n"
    assert (seen["env"]["BASH_ENV"], seen["env"]["GIT_SSH_COMMAND"]) == ("listed", "listed")
    listed = {"BASH_ENV", "GIT_SSH_COMMAND", "PYTHONPATH"}  # the last holds the snapshot's root
    assert [name for name in POISON.keys() - listed if name in seen["env"]] == []
    assert "poison" not in json.dumps(seen["env"])
    assert not list(tmp_path.rglob("canary"))


def test_git_of_a_project_calls_nothing(write_cluster: WriteCluster, tmp_path: Path) -> None:
    """Neither variables nor a hostile repository's settings make git start a program."""
    project = tmp_path / "project"
    project.mkdir()
    git = ["git", "-C", str(project), "-c", "user.name=x", "-c", "user.email=x@localhost"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run([*git, *words], check=True, timeout=scaled(20))
    canary = tmp_path / "canary"
    hook = project / "hook"
    hook.write_text(f"#!/bin/sh\ntouch '{canary}'\n")
    hook.chmod(0o755)
    for key in ("core.fsmonitor", "core.pager", "core.sshCommand", "core.editor", "diff.external"):
        subprocess.run([*git, "config", key, str(hook)], check=True, timeout=scaled(20))
    (project / "job.py").write_text("pass")
    places = {"python": sys.executable, "workdir": str(tmp_path / "node")}
    words = [
        "plan",
        "-C",
        str(write_cluster(None, "local", gpus=0, **places)),
        "--json",
        "--",
        "job.py",
    ]

    done = orchestrate(words, tmp_path / "home", project, GIT_EXTERNAL_DIFF=str(hook), **POISON)

    assert done.returncode == 0, done.stderr
    assert not canary.exists()
