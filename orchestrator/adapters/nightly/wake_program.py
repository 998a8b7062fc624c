"""The program that cron or systemd starts: it brings its own environment, since they bring none."""

from __future__ import annotations

import os
import pwd
import shlex
from collections.abc import Mapping
from pathlib import Path

import orchestrator
from orchestrator.adapters.nightly.schedule_store import NightlyFolder
from orchestrator.adapters.store.background_command import own_command
from orchestrator.adapters.store.layout import Layout
from orchestrator.adapters.transport.kept_time import KEEP_VARIABLE
from orchestrator.adapters.warm.client import VARIABLE as WARM_VARIABLE

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"
# What ssh and git need to find, and what a shell at the prompt had.
KEPT = ("SSH_AUTH_SOCK", "LANG", "LC_ALL", "ORCHESTRATE_CLUSTER", "XDG_RUNTIME_DIR")
MAX_WAKE_LOG_KIB = 1024


def write_wake_program(
    folder: NightlyFolder, layout: Layout, environ: Mapping[str, str], variables: Mapping[str, str]
) -> None:
    """Write ``wake``: ``wake tick`` begins what is due, ``wake watch`` looks for what is missing.

    ``variables`` are those of the schedule; no secret belongs there, a file of them is read by the
    night itself. Raises ``OSError``.
    """
    text = _wake_text(folder, wake_environment(layout, environ, variables))
    # Narrow from the beginning; a reader sees the old file or the new one.
    temporary = folder.path / ".wake.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o700)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder.wake)


def wake_environment(
    layout: Layout, environ: Mapping[str, str], variables: Mapping[str, str]
) -> dict[str, str]:
    """Every variable that a night has, whoever starts it. No command follows a night: neither
    connections nor a warm process stay behind it.
    """
    kept = {name: environ[name] for name in KEPT if environ.get(name)}
    root = str(Path(orchestrator.__file__).resolve().parents[1])
    modules = [root, *filter(None, environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {
        **kept,
        "HOME": environ.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir,
        "PATH": environ.get("PATH") or DEFAULT_PATH,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(modules)),
        "ORCHESTRATE_HOME": str(layout.home),
        os.fsdecode(WARM_VARIABLE): "0",
        KEEP_VARIABLE: "0",
        **variables,
    }


def _wake_text(folder: NightlyFolder, environment: Mapping[str, str]) -> str:
    variables = " \\\n    ".join(
        f"{name}={shlex.quote(value)}" for name, value in sorted(environment.items())
    )
    log = shlex.quote(str(folder.wake_log))
    return f"""#!/bin/sh
# Written by orchestrate nightly install {folder.name}, and removed with the schedule.
umask 077
find {log} -size +{MAX_WAKE_LOG_KIB}k -exec mv {log} {log}.old \\; 2>/dev/null
exec env -i \\
    {variables} \\
    {shlex.join(own_command())} nightly "$1" {folder.name} >>{log} 2>&1
"""
