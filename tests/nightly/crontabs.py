"""Debian's cron with a spool of its own: the real programs in a mount namespace."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CRONTAB = Path("/usr/bin/crontab")
WRAPPER = """#!/bin/sh
exec unshare --mount sh -c 'mount --bind {spool} /var/spool/cron/crontabs &&
    exec {real} "$@"' - "$@"
"""
DAEMON = (
    "mount --bind {spool} /var/spool/cron/crontabs && mount --bind {empty} /etc/cron.d &&"
    " mount --bind {none} /etc/crontab && mount --bind {run} /run && exec cron -f"
)


class PrivateCron:
    """``PATH`` with a crontab that knows only its own spool."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("spool", "empty", "run", "bin"):
            (root / folder).mkdir()
        (root / "none").write_text("")
        shutil.chown(root / "spool", group="crontab")
        (root / "spool").chmod(0o1730)
        self.program = root / "bin" / "crontab"
        self.program.write_text(WRAPPER.format(spool=root / "spool", real=CRONTAB))
        self.program.chmod(0o755)

    def text(self) -> str | None:
        """The crontab; None where there is none."""
        done = subprocess.run([self.program, "-l"], capture_output=True, check=False)
        return done.stdout.decode() if done.returncode == 0 else None

    def write(self, text: str) -> None:
        subprocess.run([self.program, "-"], input=text.encode(), check=True)

    def start_daemon(self) -> subprocess.Popen[bytes]:
        """cron itself, in a PID namespace that ends with it."""
        paths = {name: self.root / name for name in ("spool", "empty", "run", "none")}
        argv = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]
        return subprocess.Popen([*argv, DAEMON.format(**paths)])


def needs_cron() -> None:
    """Skip where Debian's cron or the right to have a namespace is missing."""
    if not CRONTAB.exists() or shutil.which("cron", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("needs the package cron")
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("needs root for a mount namespace")
