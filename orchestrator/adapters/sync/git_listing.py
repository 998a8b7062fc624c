"""What git says about a folder: tracked and other files, ignored ones, and by which rule."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Self

from orchestrator.core.base.errors import UsageError

DEADLINE_S = 60.0
MAX_IGNORED = 2_000
_COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_NOT_IN_A_REPOSITORY = 128
# What git wants to see in a `.git` folder, or what is left of it.
_PARTS = ("HEAD", "objects", "refs", "config")


class GitQuery:
    """The questions run side by side, while the caller does something else in between."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._tracked = _start_git(folder, "ls-files", "-z", "--cached", "--deduplicate")
        others = ("ls-files", "-z", "--others", "--exclude-standard")
        self._others = _start_git(folder, *others)
        self._ignored = _start_git(folder, *others, "--ignored", "--directory")

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
        """None if the folder is in no work tree.

        Raises ``UsageError`` if git refuses, or does not find what a ``.git`` refers to.
        """
        try:
            output, errors = self._tracked.communicate(timeout=DEADLINE_S)
        except subprocess.TimeoutExpired as error:
            raise _git_refused(self._folder, f"no answer within {DEADLINE_S:g} s") from error
        message = errors.decode(errors="replace")
        if self._tracked.returncode == _NOT_IN_A_REPOSITORY and _is_outside(self._folder, message):
            return None
        if self._tracked.returncode:
            raise _git_refused(self._folder, message)
        return _split_names(output)

    def others(self) -> list[str]:
        """Not tracked and not ignored; a name that ends in ``/`` is a repository of its own."""
        return _git_output(self._folder, self._others)

    def ignored(self) -> list[str]:
        return _git_output(self._folder, self._ignored)


def repository_root(folder: Path) -> Path | None:
    """The nearest folder from ``folder`` upwards whose ``.git`` says that it is a repository.

    An empty folder of that name does not. Like git, it stays on one file system.
    """
    here = folder.absolute()
    device = here.stat().st_dev
    for above in (here, *here.parents):
        if above.stat().st_dev != device:
            return None
        marker = above / ".git"
        if os.path.lexists(marker) and not marker.is_dir():
            return above
        if any((marker / part).exists() for part in _PARTS):
            return above
    return None


def _is_outside(folder: Path, message: str) -> bool:
    """Whether git's refusal means that there is no work tree here.

    A ``.git`` that leads nowhere (that of a work tree or submodule which was copied alone), or has
    lost its parts, is a repository whose files and rules nobody knows.
    """
    if "not a git repository" in message:
        return repository_root(folder) is None
    return "in a work tree" in message


def rule_files(folder: Path) -> tuple[Path, list[Path]]:
    """(the work tree's root, the ignore files that hold everywhere in it, the strongest first)."""
    asked = ("rev-parse", "--show-toplevel", "--git-path", "info/exclude")
    root, excluded = _folder_text(folder, *asked).split("\n")[:2]
    settings = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    personal = _folder_text(folder, "config", "--type=path", "--get", "core.excludesFile").strip()
    return Path(root), [folder / excluded, Path(personal or Path(settings) / "git/ignore")]


def is_folder_ignored(folder: Path) -> bool:
    """Whether the repository around ``folder`` ignores it as a whole."""
    process = _start_git(folder, "check-ignore", "--quiet", ".")
    try:
        process.communicate(timeout=DEADLINE_S)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise _git_refused(folder, f"no answer within {DEADLINE_S:g} s") from error
    return process.returncode == 0


def asked_commit(folder: Path) -> str:
    """The commit that is checked out around ``folder``, by a process of git; empty where there is
    none, or no git.
    """
    try:
        text = _folder_text(folder, "rev-parse", "--verify", "--quiet", "HEAD").strip()
    except (OSError, UsageError):
        return ""
    return text if _COMMIT.fullmatch(text) else ""


def ignore_reasons(folder: Path, names: list[str]) -> list[tuple[str, str]]:
    """(name, rule such as ``.gitignore:3: *.ckpt``) for ignored names."""
    if not names:
        return []
    process = _start_git(folder, "check-ignore", "--verbose", "-z", "--stdin", stdin=True)
    fields = _names_of(folder, process, "\0".join(names).encode(errors="surrogateescape"))
    rows = zip(fields[0::4], fields[1::4], fields[2::4], fields[3::4], strict=False)
    return [
        (name, f"{_short_source(source)}:{line}: {pattern}") for source, line, pattern, name in rows
    ]


def _short_source(source: str) -> str:
    path = Path(source)
    return "/".join(path.parts[-2:]) if path.is_absolute() else source


def _folder_text(folder: Path, *arguments: str) -> str:
    process = _start_git(folder, *arguments)
    try:
        return process.communicate(timeout=DEADLINE_S)[0].decode(errors="surrogateescape")
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise _git_refused(folder, f"no answer within {DEADLINE_S:g} s") from error


def _start_git(folder: Path, *arguments: str, stdin: bool = False) -> subprocess.Popen[bytes]:
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


def _git_output(folder: Path, process: subprocess.Popen[bytes]) -> list[str]:
    output, errors = _communicate(folder, process, None)
    if process.returncode:
        said = errors.decode(errors="replace").strip()
        raise _git_refused(folder, said or f"git ended with code {process.returncode}")
    return _split_names(output)


def _names_of(folder: Path, process: subprocess.Popen[bytes], data: bytes | None) -> list[str]:
    return _split_names(_communicate(folder, process, data)[0])


def _communicate(
    folder: Path, process: subprocess.Popen[bytes], data: bytes | None
) -> tuple[bytes, bytes]:
    try:
        return process.communicate(data, timeout=DEADLINE_S)
    except subprocess.TimeoutExpired as error:
        process.kill()
        raise _git_refused(folder, f"no answer within {DEADLINE_S:g} s") from error


def _split_names(output: bytes) -> list[str]:
    return output.decode(errors="surrogateescape").split("\0")[:-1]


def _git_refused(folder: Path, why: str) -> UsageError:
    return UsageError(
        "git cannot list the files",
        id="OR-SYNC-004",
        where=folder,
        why=" ".join(why.split())[:500],
        remedy=f"see what `git -C {folder} status` says; in a copy without .git, the .gitignore "
        "files hold by themselves",
    )
