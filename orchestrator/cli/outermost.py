"""Failures at the outermost frame: text on stderr, JSON on stdout when asked, and an exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TextIO

from click import ClickException
from click import UsageError as ClickUsageError

from orchestrator import __version__
from orchestrator.core.base.errors import (
    BusyError,
    InternalError,
    Interrupted,
    OrchestrateError,
    PreflightError,
    UsageError,
)
from orchestrator.core.base.suggest import nearest_name
from orchestrator.view.terminal.text import clean_paragraph

SCHEMA_VERSION = 1
SIGPIPE_EXIT = 141
_KEPT_ERRORS = 20
_SHOWN_PATH = 200
_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# What a system says of a path itself, and not of the state that it is in.
_UNUSABLE_PATH = frozenset(
    {errno.EACCES, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOENT, errno.ENOTDIR}
)
# What it says of a path in a folder only because of that folder.
_UNUSABLE_FOLDER = frozenset({errno.EACCES, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOTDIR})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})


def report_error(error: OrchestrateError, *, as_json: bool) -> int:
    """Print ``error`` for people, and for machines as the one last line of type `result` that
    every verb promises; returns its exit code.
    """
    _write(sys.stderr, clean_paragraph(f"orchestrate: {error}\n"))
    if as_json:
        import json  # here, as below: commands that end well begin sooner

        _write(sys.stdout, json.dumps(_failed_result(error), ensure_ascii=True) + "\n")
    _flush(sys.stdout)
    return int(error.exit_code)


def with_near_name(error: ClickException) -> ClickException:
    """The same with the one name that is near, in place of all that click finds a little alike."""
    found = getattr(error, "possibilities", None)
    if not found or not isinstance(error, ClickUsageError):
        return error
    typed: str = getattr(error, "option_name", "") or getattr(error, "command_name", "")
    near = nearest_name(typed, found)
    hint = f"; did you mean {near!r}?" if near else ""
    return ClickUsageError(error.message.rstrip(".") + hint, error.ctx)


def report_click(error: ClickException) -> int:
    """What click has to say of the command line; returns its exit code."""
    text = io.StringIO()
    error.show(file=text)
    _write(sys.stderr, clean_paragraph(text.getvalue()))
    return error.exit_code


def unusable_path(error: Exception, words: Sequence[str]) -> UsageError | None:
    """What the system said of a path that stands on the command line as a word, or behind its =,
    or of a file in a folder that stands there; None for anything else, which is a bug.
    """
    if not isinstance(error, OSError) or error.errno not in _UNUSABLE_PATH:
        return None
    given = {*words, *(word.partition("=")[2] for word in words)} - {""}
    path = _path_of(error)
    if path not in given:
        path = os.path.dirname(path)  # noqa: PTH120 - as text
        if error.errno not in _UNUSABLE_FOLDER or path not in given:
            return None
    what = f"this path cannot be used: {error.strerror}"
    shown = path if len(path) <= _SHOWN_PATH else f"{path[:_SHOWN_PATH]}..."
    return UsageError(what, id="usage.path", where=shown, remedy="name another file or folder")


def no_space(error: Exception) -> BusyError | None:
    """What the system said because a disk is full: that of stdout, or that of the home folder, as
    what writes elsewhere says where. None for anything else.
    """
    if not isinstance(error, OSError) or error.errno not in _NO_SPACE:
        return None
    what = f"what this command makes cannot be written: {error.strerror}"
    remedy = "free space where stdout goes to and below ORCHESTRATE_HOME (~/.orchestrate)"
    return BusyError(what, id="output.no-space", where=_path_of(error), remedy=remedy)


def unusable_home(error: Exception, environ: Mapping[str, str]) -> PreflightError | None:
    """A disk that may not be written, and files of the home that this user may not touch; None for
    anything else, which is a bug.
    """
    if not isinstance(error, OSError) or error.errno not in {errno.EROFS, *_FORBIDDEN}:
        return None
    from orchestrator.adapters.store.layout import Layout

    home, path = Layout.from_environment(environ).home, _path_of(error)
    if error.errno in _FORBIDDEN and not Path(path).is_relative_to(home):
        return None
    return PreflightError(
        f"this cannot be written: {error.strerror}",
        id="usage.home",
        where=path or str(home),
        remedy="mend the rights, or let ORCHESTRATE_HOME name another folder",
    )


def _path_of(error: OSError) -> str:
    """Empty where the system names none, or the number of a descriptor."""
    return os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""


def report_internal(error: BaseException, environ: Mapping[str, str], *, as_json: bool) -> int:
    """Keep the traceback of a bug in a file and say where; returns 70."""
    import traceback

    from orchestrator.cli.masking import mask_secrets

    trace = mask_secrets("".join(traceback.format_exception(error)), environ)
    what = mask_secrets(f"internal error: {type(error).__name__}: {error}", environ)[:500]
    try:
        kept = _keep_traceback(trace, environ)
    except (OSError, OrchestrateError) as unwritable:
        _write(sys.stderr, clean_paragraph(trace))
        kept = None
        why = f"the traceback is above; it could not be kept: {unwritable}"
    else:
        why = f"the traceback is in {kept}"
    remedy = f"report it together with {kept}" if kept else "report it together with the traceback"
    internal = InternalError(what, id="internal", why=why, remedy=remedy)
    return report_error(internal, as_json=as_json)


def broken_pipe() -> int:
    """The reader of stdout has gone: end quietly, as a program that SIGPIPE ends."""
    _send_nowhere(sys.stdout)
    return SIGPIPE_EXIT


def _write(stream: TextIO, text: str) -> None:
    """``text`` on ``stream``, if that takes it: the exit code tells the rest."""
    try:
        stream.write(text)
    except OSError:
        _send_nowhere(stream)
    _flush(stream)


def _flush(stream: TextIO) -> None:
    try:
        stream.flush()
    except OSError:
        _send_nowhere(stream)


def _send_nowhere(stream: TextIO) -> None:
    """The interpreter flushes ``stream`` once more at exit; that must not fail a second time."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, stream.fileno())
    os.close(devnull)


def _failed_result(error: OrchestrateError) -> dict[str, object]:
    """Of a run that failed before it had an id, or of a verb that has none."""
    cause = f"{error.where}: {error.what}" if error.where else error.what
    failure = {
        "id": error.id,
        "node": None,
        "rank": None,
        "cause": cause,
        "why": error.why,
        "remedy": error.remedy,
    }
    return {
        "type": "result",
        "schema_version": SCHEMA_VERSION,
        "run_id": "",
        "status": "stopped" if isinstance(error, Interrupted) else "failed",
        "exit_code": int(error.exit_code),
        "cluster": "",
        "workload": "",
        "launcher": "",
        "ladder": [],
        "nodes": [],
        "world_size": 0,
        "metrics": {},
        "samples": None,
        "timings": {},
        "failure": failure,
        "report": "",
    }


def _keep_traceback(trace: str, environ: Mapping[str, str]) -> Path:
    """Write the traceback below the home directory; only the newest files stay."""
    from datetime import UTC, datetime

    from orchestrator.adapters.store.atomic_files import make_private_dir, write_atomic
    from orchestrator.adapters.store.layout import Layout

    folder = make_private_dir(Layout.from_environment(environ).home / "errors")
    now = datetime.now(UTC)
    path = folder / f"{now:%Y%m%dT%H%M%S.%fZ}-{os.getpid()}.txt"
    head = f"orchestrate {__version__}, Python {sys.version.split()[0]}, {now.isoformat()}\n"
    write_atomic(path, (head + trace).encode("utf-8", "backslashreplace"))
    for old in sorted(folder.glob("*.txt"))[:-_KEPT_ERRORS]:
        old.unlink(missing_ok=True)
    return path
