"""The user's crontab: exactly our own lines are put in and taken out.

Debian's cron does not know CRON_TZ, so that no line relies on it: an entry wakes every quarter of
an hour, in whatever zone the host is, and the program decides what is due.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.adapters.nightly.schedule_store import NightlyFolder
from orchestrator.core.base.errors import UsageError
from orchestrator.core.nightly.schedule import wake_minutes

TIMEOUT_S = 20.0
VERBS = ("tick", "watch")
MAX_LINE = 998  # Debian's cron refuses longer commands
_BEGIN, _END = "# nightly schedule {name}: begin", "# nightly schedule {name}: end"
_SHOWN_CR = "\\r"  # of Debian's crontab -l: a backslash and an r
_MADE = " (this crontab was made for it)"


@dataclass(frozen=True, slots=True)
class _Block:
    """Which lines of a crontab are a schedule's: from ``first`` to before ``end``."""

    first: int
    end: int


def cron_lines(folder: NightlyFolder, minute: int, *, made: bool) -> list[str]:
    """The lines of a schedule. ``made``: there was no crontab before."""
    minutes = ",".join(map(str, wake_minutes(minute)))
    entries = [f"{minutes} * * * * {_program(folder)} {verb}" for verb in VERBS]
    if any(len(entry) > MAX_LINE for entry in entries):
        what = "the path is too long for a line of a crontab"
        raise UsageError(what, id="nightly.cron", where=folder.wake, remedy=_remedy(folder.name))
    begin = _BEGIN.format(name=folder.name) + (_MADE if made else "")
    return [begin, *entries, _END.format(name=folder.name)]


def install_cron(folder: NightlyFolder, minute: int) -> None:
    """Put the schedule's lines into the crontab, once. Raises :class:`UsageError`."""
    before = read_crontab()
    rest = without_schedule(before or "", folder)
    if rest and not rest.endswith("\n"):
        # Ended by us, lines would begin to run that cron leaves out as they are.
        what, why = "the crontab's last line has no end", "cron does not run such a crontab"
        remedy = "crontab -e: end the last line, or remove it; then repeat the command"
        raise UsageError(what, id="nightly.cron", why=why, remedy=remedy)
    made = before is None or (not rest and _was_made(before, folder))
    lines = cron_lines(folder, minute, made=made)
    wanted = rest + "".join(f"{line}\n" for line in lines)
    if wanted != before:
        _write_crontab(wanted)


def remove_cron(folder: NightlyFolder) -> bool:
    """Take the schedule's lines out; whether there were any. Raises :class:`UsageError`."""
    before = read_crontab()
    if before is None or not has_schedule(before, folder):
        return False
    rest = without_schedule(before, folder)
    made = _was_made(before, folder)
    if made and not rest:
        _crontab(["-r"])
    else:
        _write_crontab(_pass_mark_on(rest) if made else rest)
    return True


def _pass_mark_on(rest: str) -> str:
    """Let another schedule remember that there was no crontab before ours."""
    begins = _BEGIN[: _BEGIN.index("{name}")]
    first = next((line for line in rest.split("\n") if line.startswith(begins)), None)
    return rest if first is None else rest.replace(f"{first}\n", f"{first}{_MADE}\n", 1)


def has_schedule(crontab: str, folder: NightlyFolder) -> bool:
    """Whether lines of the schedule are in it."""
    return bool(_blocks(_split(crontab), folder))


def without_schedule(crontab: str, folder: NightlyFolder) -> str:
    """All other lines, byte for byte."""
    lines = _split(crontab)
    for block in reversed(_blocks(lines, folder)):
        del lines[block.first : block.end]
    return "".join(lines)


def _blocks(lines: Sequence[str], folder: NightlyFolder) -> list[_Block]:
    """The schedule's own: a schedule of this name that another home installed calls another
    program. Raises :class:`UsageError` for one without its end.
    """
    found = []
    for first, line in enumerate(lines):
        if not _begins(line, folder.name):
            continue
        ends = range(first + 1, min(first + 2 + len(VERBS), len(lines)))
        end = next((n for n in ends if _bare(lines[n]) == _END.format(name=folder.name)), None)
        calls = lines[first + 1 : end if end is not None else first + 2]
        if calls and not any(_program(folder) in call for call in calls):
            continue
        if end is None:
            what = f"the crontab has the beginning of {folder.name} and not its end"
            remedy = "crontab -e: remove the lines from there on that call its program wake"
            where = f"line {first + 1}"
            raise UsageError(what, id="nightly.cron", where=where, remedy=remedy)
        found.append(_Block(first, end + 1))
    return found


def read_crontab() -> str | None:
    """The user's crontab, its bytes as text; None where there is none. Raises
    :class:`UsageError`.
    """
    done = _crontab(["-l"], check=False)
    if done.returncode == 0:
        return _text(done.stdout)
    if b"no crontab" in done.stderr:
        return None
    raise _failed(_text(done.stderr))


def _program(folder: NightlyFolder) -> str:
    # A percent sign is a newline to cron, also between quotes.
    return shlex.quote(str(folder.wake)).replace("%", "\\%")


def _split(crontab: str) -> list[str]:
    """Its lines with their ends: only a newline ends one, to cron."""
    lines = [f"{line}\n" for line in crontab.split("\n")]
    lines[-1] = lines[-1].removesuffix("\n")
    return lines if lines[-1] else lines[:-1]


def _bare(line: str) -> str:
    """Without its end, also where an editor made that CR LF."""
    return line.rstrip("\r\n").removesuffix(_SHOWN_CR)


def _begins(line: str, name: str) -> bool:
    return _bare(line).removesuffix(_MADE) == _BEGIN.format(name=name)


def _was_made(crontab: str, folder: NightlyFolder) -> bool:
    lines = _split(crontab)
    return any(_bare(lines[block.first]).endswith(_MADE) for block in _blocks(lines, folder))


def _write_crontab(text: str) -> None:
    for number, line in enumerate(_split(text), 1):
        if line.removesuffix("\n").endswith(_SHOWN_CR):
            what = "a line of the crontab ends with a carriage return"
            why = "crontab -l shows it as two other characters: written back, the line would change"
            remedy = "end its lines with a newline alone: crontab -e; then repeat the command"
            where = f"line {number}"
            raise UsageError(what, id="nightly.cron", where=where, why=why, remedy=remedy)
    _crontab(["-"], text.encode("utf-8", "surrogateescape"))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _crontab(
    arguments: Sequence[str], text: bytes | None = None, *, check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    try:
        done = subprocess.run(
            ["crontab", *arguments],
            input=text,
            stdin=subprocess.DEVNULL if text is None else None,
            capture_output=True,
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
        raise _failed(_text(done.stderr))
    return done


def _failed(why: str) -> UsageError:
    what = "the crontab could not be read or written"
    return UsageError(what, id="nightly.cron", why=why.strip()[:300], remedy="crontab -l shows it")


def _remedy(name: str) -> str:
    return f"orchestrate nightly install {name} --systemd, or another ORCHESTRATE_HOME"
