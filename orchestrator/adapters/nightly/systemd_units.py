"""systemd's user manager: a timer that wakes the schedule's program, and one that watches.

The timers wake every quarter of an hour, as cron's lines do: the program decides what is due, so
that both keep one calendar (systemd itself leaves a night out when the clock jumps over it).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.adapters.nightly.schedule_store import NightlyFolder
from orchestrator.adapters.store.atomic_files import make_private_dir, write_atomic
from orchestrator.core.base.errors import UsageError
from orchestrator.core.nightly.schedule import wake_minutes

TIMEOUT_S = 20.0
VERBS = ("tick", "watch")


def unit_folder(environ: Mapping[str, str]) -> Path:
    """Where user units are kept."""
    base = environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME") or Path.home()) / ".config"
    return Path(base) / "systemd" / "user"


def unit_texts(folder: NightlyFolder, minute: int) -> dict[str, str]:
    """File name -> text of the schedule's four units."""
    minutes = ",".join(f"{each:02d}" for each in wake_minutes(minute))
    texts = {}
    for verb in VERBS:
        name = f"orchestrate-{folder.name}-{verb}"
        program = _escaped(str(folder.wake))
        texts[f"{name}.service"] = (
            f"[Unit]\nDescription=Nightly schedule {folder.name}: {verb}\n\n"
            f"[Service]\nType=oneshot\nExecStart=/bin/sh {program} {verb}\n"
            "# A night is ended by its own limit; what it starts in the background may finish.\n"
            "TimeoutStartSec=infinity\nKillMode=process\n"
        )
        texts[f"{name}.timer"] = (
            f"[Unit]\nDescription=Nightly schedule {folder.name}: {verb}\n\n"
            f"[Timer]\nOnCalendar=*-*-* *:{minutes}:00\nAccuracySec=1s\nPersistent=true\n\n"
            "[Install]\nWantedBy=timers.target\n"
        )
    return texts


def has_user_manager() -> bool:
    """Whether a user manager answers here."""
    try:
        return _systemctl(["show-environment"]).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def install_units(folder: NightlyFolder, minute: int, environ: Mapping[str, str]) -> None:
    """Write and enable the units. Raises :class:`UsageError`, ``OSError``."""
    if not has_user_manager():
        what, why = "no systemd user manager answers", "systemctl --user show-environment failed"
        remedy = f"orchestrate nightly install {folder.name} --cron"
        raise UsageError(what, id="nightly.systemd", why=why, remedy=remedy)
    units = make_private_dir(unit_folder(environ))
    if (units / _timers(folder)[0]).exists() and not has_units(folder, environ):
        what = f"another schedule called {folder.name} is installed, that of another home"
        remedy = "add this one under another name, or install it with --cron"
        raise UsageError(what, id="nightly.systemd", where=units, remedy=remedy)
    for name, text in unit_texts(folder, minute).items():
        write_atomic(units / name, text.encode())
    _require(["daemon-reload"])
    _require(["enable", "--now", *_timers(folder)])


def remove_units(folder: NightlyFolder, environ: Mapping[str, str]) -> bool:
    """Disable and delete the units; whether there were any."""
    if not has_units(folder, environ):
        return False
    units = unit_folder(environ)
    present = [units / name for name in unit_texts(folder, 0) if (units / name).exists()]
    if has_user_manager():
        _systemctl(["disable", "--now", *_timers(folder)])
    for path in present:
        path.unlink(missing_ok=True)
    if has_user_manager():
        _systemctl(["daemon-reload"])
    return True


def has_units(folder: NightlyFolder, environ: Mapping[str, str]) -> bool:
    """Whether the schedule's timer is installed: a unit of this name that calls its program."""
    units = unit_folder(environ)
    try:
        text = (units / _timers(folder)[0]).with_suffix(".service").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False
    return _escaped(str(folder.wake)) in text


def _timers(folder: NightlyFolder) -> list[str]:
    return [f"orchestrate-{folder.name}-{verb}.timer" for verb in VERBS]


def _escaped(path: str) -> str:
    """A path as an argument of ``ExecStart``: specifiers, variables and quotes are text."""
    text = path.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{text}"'


def _require(arguments: Sequence[str]) -> None:
    done = _systemctl(arguments)
    if done.returncode != 0:
        what = f"systemctl --user {arguments[0]} failed"
        why = done.stderr.strip()[:300]
        raise UsageError(what, id="nightly.systemd", why=why, remedy="use --cron")


def _systemctl(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemctl", "--user", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, "SYSTEMD_COLORS": "0"},
    )
