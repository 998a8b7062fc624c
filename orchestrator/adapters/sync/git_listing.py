"""What git says about a folder: tracked and other files, ignored ones, and by which rule."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Self

from orchestrator.core.base.errors import UsageError

DEADLINE_S = 60.0
MAX_IGNORED = 2_000
_NOT_IN_A_REPOSITORY = 128


class Query:
    """The questions run side by side, while the caller does something else in between."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tracked = _start(folder, "ls-files", "-z", "--cached", "--deduplicate")
        others = ("ls-files", "-z", "--others", "--exclude-standard")
        self._others = _start(folder, *others)
        self._ignored = _start(folder, *others, "--ignored", "--directory")

    @classmethod
    def start(cls, folder: Path) -> Self | None:
        """None if git is not installed."""
        try:
            return cls(folder)
        except FileNotFoundError:
            return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in (self._tracked, self._others, self._ignored):
            if process.poll() is None:
                process.kill()
            with process:  # closes its pipes and reaps it
                pass

    def tracked(self) -> list[str] | None:
        """None if the folder is in no work tree. Raises ``UsageError`` if git refuses."""
        try:
            output, errors = self._tracked.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired as error:
            raise _refused(self._folder, f"no answer within {DEADLINE_S:g} s") from error
        message = errors.decode(errors="replace")
        outside = "not a git repository" in message or "in a work tree" in message
        if self._tracked.returncode == _NOT_IN_A_REPOSITORY and outside:
            return None
        if self._tracked.returncode:
            raise _refused(self._folder, message)
        return _names(output)

    def others(self) -> list[str]:
        """Not tracked and not ignored; a name that ends in ``/`` is a repository of its own."""
        return _output(self._folder, self._others)

    def ignored(self) -> list[str]:
        return _output(self._folder, self._ignored)


def ignores(folder: Path) -> bool:
    """Whether the repository around ``folder`` ignores it as a whole."""
    process = _start(folder, "check-ignore", "--quiet", ".")
    try:
        process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise _refused(folder, f"no answer within {DEADLINE_S:g} s") from error
    return process.returncode == 0


def reasons(folder: Path, names: list[str]) -> list[tuple[str, str]]:
    """(name, rule such as ``.gitignore:3: *.ckpt``) for ignored names."""
    if not names:
        return []
    process = _start(folder, "check-ignore", "--verbose", "-z", "--stdin", stdin=True)
    fields = _names_of(folder, process, "\0".join(names).encode(errors="surrogateescape"))
    rows = zip(fields[0::4], fields[1::4], fields[2::4], fields[3::4], strict=False)
    return [(name, f"{_short(source)}:{line}: {pattern}") for source, line, pattern, name in rows]


def _short(source: str) -> str:
    path = Path(source)
    return "/".join(path.parts[-2:]) if path.is_absolute() else source


def _start(folder: Path, *arguments: str, stdin: bool = False) -> subprocess.Popen[bytes]:
    # A variable left by a hook would point git elsewhere; a file monitor is a program of the
    # repository's choice, and none is needed to list names.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment |= {"LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    return subprocess.Popen(
        ["git", "-C", str(folder), "-c", "core.fsmonitor=false", *arguments],
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
    )


def _output(folder: Path, process: subprocess.Popen[bytes]) -> list[str]:
    names = _names_of(folder, process, None)
    if process.returncode:
        raise _refused(folder, f"git ended with code {process.returncode}")
    return names


def _names_of(folder: Path, process: subprocess.Popen[bytes], data: bytes | None) -> list[str]:
    try:
        return _names(process.communicate(data, timeout=DEADLINE_S)[0])
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise _refused(folder, f"no answer within {DEADLINE_S:g} s") from error


def _names(output: bytes) -> list[str]:
    return output.decode(errors="surrogateescape").split("\0")[:-1]


def _refused(folder: Path, why: str) -> UsageError:
    return UsageError(
        "git cannot list the files",
        id="OR-SYNC-004",
        where=folder,
        why=" ".join(why.split())[:500],
        remedy=f"see what `git -C {folder} status` says, or copy the code to a folder without git",
    )
