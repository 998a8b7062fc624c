"""Who runs this program, as OpenSSH sees it: by the user database, not by the environment."""

from __future__ import annotations

import functools
import os
import pwd
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Account:
    """The user's name, home directory and number."""

    name: str
    home: str
    uid: int


@functools.cache
def current_account() -> Account:
    """The account of this process; one that the database does not have is what it says it is."""
    uid = os.getuid()
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        import getpass

        return Account(getpass.getuser(), str(Path.home()), uid)
    return Account(entry.pw_name, entry.pw_dir, uid)


def expand_tilde(path: str) -> str:
    """``~`` and ``~user`` at the beginning, by the user database. Raises ``ValueError``."""
    if not path.startswith("~"):
        return path
    user, _, rest = path[1:].partition("/")
    try:
        home = pwd.getpwnam(user).pw_dir if user else current_account().home
    except KeyError:
        raise ValueError(f"there is no user {user!r}") from None
    return f"{home.rstrip('/')}/{rest.lstrip('/')}"
