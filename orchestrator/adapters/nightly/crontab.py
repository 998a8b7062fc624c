"""The user's crontab: exactly our own lines are put in and taken out.

Debian's cron does not know CRON_TZ, so that no line relies on it: an entry wakes every quarter of
an hour, in whatever zone the host is, and the program decides what is due.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence

from orchestrator.adapters.nightly.schedule_store import NightlyFolder
from orchestrator.core.base.errors import UsageError
from orchestrator.core.nightly.schedule import wake_minutes

TIMEOUT_S = 20.0
MAX_LINE = 998  # Debian's cron refuses longer commands
_BEGIN, _END = "# nightly schedule {name}: begin", "# nightly schedule {name}: end"
_MADE = " (this crontab was made for it)"


def cron_lines(folder: NightlyFolder, minute: int, *, made: bool) -> list[str]:
    """The lines of a schedule. ``made``: there was no crontab before."""
    minutes = ",".join(map(str, wake_minutes(minute)))
    # A percent sign is a newline to cron, also between quotes.
    program = shlex.quote(str(folder.wake)).replace("%", "\\%")
    entries = [f"{minutes} * * * * {program} {verb}" for verb in ("tick", "watch")]
    if any(len(entry) > MAX_LINE for entry in entries):
        what = "the path is too long for a line of a crontab"
        raise UsageError(what, id="nightly.cron", where=folder.wake, remedy=_remedy(folder.name))
    begin = _BEGIN.format(name=folder.name) + (_MADE if made else "")
    return [begin, *entries, _END.format(name=folder.name)]


def install_cron(folder: NightlyFolder, minute: int) -> None:
    """Put the schedule's lines into the crontab, once. Raises :class:`UsageError`."""
    before = read_crontab()
    rest = without_schedule(before or "", folder.name)
    made = before is None or (not rest and _was_made(before, folder.name))
    lines = cron_lines(folder, minute, made=made)
    wanted = rest + "".join(f"{line}\n" for line in lines)
    if wanted != before:
        _write_crontab(wanted)


def remove_cron(folder: NightlyFolder) -> bool:
    """Take the schedule's lines out; whether there were any. Raises :class:`UsageError`."""
    before = read_crontab()
    if before is None or not has_schedule(before, folder.name):
        return False
    rest = without_schedule(before, folder.name)
    made = _was_made(before, folder.name)
    if made and not rest:
        _crontab(["-r"])
    else:
        _write_crontab(_pass_mark_on(rest) if made else rest)
    return True


def _pass_mark_on(rest: str) -> str:
    """Let another schedule remember that there was no crontab before ours."""
    begins = _BEGIN[: _BEGIN.index("{name}")]
    first = next((line for line in rest.splitlines() if line.startswith(begins)), None)
    return rest if first is None else rest.replace(f"{first}\n", f"{first}{_MADE}\n", 1)


def has_schedule(crontab: str, name: str) -> bool:
    """Whether lines of the schedule are in it."""
    return any(_begins(line, name) for line in crontab.splitlines())


def without_schedule(crontab: str, name: str) -> str:
    """All other lines, byte for byte."""
    kept: list[str] = []
    inside = False
    for line in crontab.splitlines(keepends=True):
        if _begins(line, name):
            inside = True
        if not inside:
            kept.append(line)
        if line.rstrip("\n") == _END.format(name=name):
            inside = False
    if inside:
        what = f"the crontab has the beginning of {name} and not its end"
        remedy = "crontab -e: remove the lines from there on that call its program wake"
        raise UsageError(what, id="nightly.cron", remedy=remedy)
    return "".join(kept)


def read_crontab() -> str | None:
    """The user's crontab; None where there is none. Raises :class:`UsageError`."""
    done = _crontab(["-l"], check=False)
    if done.returncode == 0:
        return done.stdout
    if "no crontab" in done.stderr:
        return None
    raise _failed(done.stderr)


def _begins(line: str, name: str) -> bool:
    bare = line.rstrip("\n").removesuffix(_MADE)
    return bare == _BEGIN.format(name=name)


def _was_made(crontab: str, name: str) -> bool:
    return _BEGIN.format(name=name) + _MADE in crontab.splitlines()


def _write_crontab(text: str) -> None:
    _crontab(["-"], text)


def _crontab(
    arguments: Sequence[str], text: str | None = None, *, check: bool = True
) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(
            ["crontab", *arguments],
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        what, why = "cron is not here", "there is no program crontab"
        remedy = "install the package cron, or use --systemd"
        raise UsageError(what, id="nightly.cron", why=why, remedy=remedy) from error
    except subprocess.TimeoutExpired as error:
        raise _failed(f"no answer within {TIMEOUT_S:g} s") from error
    if check and done.returncode != 0:
        raise _failed(done.stderr)
    return done


def _failed(why: str) -> UsageError:
    what = "the crontab could not be read or written"
    return UsageError(what, id="nightly.cron", why=why.strip()[:300], remedy="crontab -l shows it")


def _remedy(name: str) -> str:
    return f"orchestrate nightly install {name} --systemd, or another ORCHESTRATE_HOME"
