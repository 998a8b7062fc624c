"""Where the files of ssh_config lie."""

from __future__ import annotations

import glob
from pathlib import Path

from orchestrator.adapters.transport.ssh_config.account import current_account

SYSTEM_FOLDER = Path("/etc/ssh")


def users_config() -> Path:
    """The user's own file, which counts first."""
    return Path(current_account().home, ".ssh", "config")


def system_config() -> Path:
    """The file of the system, where the user's own has not said it."""
    return SYSTEM_FOLDER / "ssh_config"


def include_pattern(word: str, *, of_user: bool) -> Path | None:
    """The pattern of paths that a word of ``Include`` means; None: a home directory of nobody."""
    base = "~/.ssh" if of_user else str(SYSTEM_FOLDER)
    # The one place where OpenSSH takes the home directory from the environment: its glob does.
    return expand_home(word if word.startswith(("/", "~")) else f"{base}/{word}")


def matching_paths(pattern: Path | None) -> list[Path]:
    """The files that a pattern means, by name; hidden ones only if it says so."""
    names = glob.glob(str(pattern)) if pattern else []  # noqa: PTH207 - pathlib finds hidden files
    return [Path(name) for name in sorted(names) if Path(name).is_file()]


def expand_home(path: str) -> Path | None:
    """With the home directory of the environment for ``~``; None: there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return None
