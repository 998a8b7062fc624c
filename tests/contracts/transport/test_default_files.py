"""The files that ``ssh`` reads unless another one is named: the user's, then the system's."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.architecture.source import ROOT

pytestmark = pytest.mark.processes

HOME = pwd.getpwuid(os.getuid()).pw_dir
ALONE = 'mount --bind "$1" "$2" && mount --bind "$3" /etc/ssh && shift 3 && exec "$@"'

USERS = """\
Include more/*.conf
Host n1
  User alice
Host n*
  IdentityFile ~/.ssh/users
"""
SYSTEMS = """\
Include ssh_config.d/*.conf
Host *
  User system
  Port 2200
  IdentityFile ~/.ssh/systems
  SendEnv LANG
"""


def judge(tmp_path: Path, names: list[str], home: str = HOME) -> dict[str, Any]:
    """With ``tmp_path``'s user and system for ``~/.ssh`` and ``/etc/ssh``."""
    Path(HOME, ".ssh").mkdir(mode=0o700, exist_ok=True)
    places = [str(tmp_path / "user"), f"{HOME}/.ssh", str(tmp_path / "system")]
    command = ["unshare", "--mount", "sh", "-c", ALONE, "sh", *places, sys.executable, "-m"]
    done = subprocess.run(
        [*command, "tests.contracts.transport.default_files_judge", *names],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env={**os.environ, "HOME": home},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def write(path: Path, text: str, mode: int = 0o600) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def test_the_users_file_first(tmp_path: Path) -> None:
    """Relative Includes begin beside each; hidden files do not match a pattern."""
    write(tmp_path / "user/config", USERS)
    write(tmp_path / "user/more/one.conf", "Host n2\n  HostName 192.0.2.2\n")
    write(tmp_path / "user/more/.hidden.conf", "Host n2\n  User hidden\n")
    write(tmp_path / "system/ssh_config", SYSTEMS)
    write(tmp_path / "system/ssh_config.d/a.conf", "Host n3\n  Port 3\n")

    found = judge(tmp_path, ["n1", "n2", "n3", "other"])

    assert [one["differences"] for one in found.values()] == [{}] * 4
    seen = {name: one["openssh"] for name, one in found.items()}
    assert [seen[name]["user"] for name in ("n1", "n2")] == [["alice"], ["system"]]
    assert [seen[name]["port"] for name in ("n1", "n3")] == [["2200"], ["3"]]
    assert seen["n2"]["hostname"] == ["192.0.2.2"]
    assert seen["n1"]["identityfile"] == ["~/.ssh/users", "~/.ssh/systems"]


def test_a_home_that_is_not_the_accounts(tmp_path: Path) -> None:
    """``HOME`` counts for relative Includes alone: the C library's glob looks there."""
    write(tmp_path / "user/config", "Include more\nUserKnownHostsFile ~/known ${HOME}/known\n")
    write(tmp_path / "user/more", "Port 1\n")
    write(tmp_path / "system/ssh_config", "")
    write(tmp_path / "elsewhere/.ssh/more", "Port 2\n")

    found = judge(tmp_path, ["n"], home=str(tmp_path / "elsewhere"))["n"]

    assert found["differences"] == {}
    assert found["openssh"]["port"] == ["2"]
    known_hosts = f"{HOME}/known {tmp_path}/elsewhere/known"
    assert found["openssh"]["userknownhostsfile"] == [known_hosts]


def test_files_that_others_may_write_to(tmp_path: Path) -> None:
    """Refused by both: they name commands to run. The system's own file is trusted."""
    write(tmp_path / "user/config", "Port 1\n", 0o666)
    write(tmp_path / "system/ssh_config", "Port 2\n", 0o666)

    assert judge(tmp_path, ["n"])["n"] == {"openssh": None, "differences": {}}

    write(tmp_path / "user/config", "Include more\n")
    write(tmp_path / "user/more", "Port 3\n", 0o622)

    assert judge(tmp_path, ["n"])["n"] == {"openssh": None, "differences": {}}

    (tmp_path / "user/config").unlink()

    found = judge(tmp_path, ["n"])["n"]
    assert (found["openssh"]["port"], found["differences"]) == (["2"], {})


def test_a_tilde_in_a_system_file(tmp_path: Path) -> None:
    """Bad for both."""
    write(tmp_path / "user/config", "Port 1\n")
    write(tmp_path / "system/ssh_config", "Include ~/more\n")

    assert judge(tmp_path, ["n"])["n"] == {"openssh": None, "differences": {}}
