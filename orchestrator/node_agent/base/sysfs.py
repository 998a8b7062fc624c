"""Small files of the kernel as text: what is absent or forbidden reads as nothing. And which
machine this is, and which of its boots.
"""

from __future__ import annotations

import os
import re

MAX_BYTES = 256
_WHOLE = re.compile(r"-?[0-9]{1,20}\Z")


def read_text(path: str, limit: int = MAX_BYTES) -> str:
    """At most ``limit`` characters without the white space around them; "" for no file."""
    try:
        with open(path, errors="replace") as file:
            return file.read(limit).strip()
    except (OSError, ValueError):
        return ""


def list_names(path: str) -> list[str]:
    """What is in a directory, sorted; nothing for none."""
    try:
        return sorted(os.listdir(path))
    except OSError:
        return []


def parse_int(text: str) -> int | None:
    """A decimal number of at most 64 bits, perhaps negative; None for anything else.

    ``str.isdigit`` would not do: it is true of ``\u00b2``, and of more digits than `int` takes.
    """
    return int(text) if _WHOLE.match(text) else None


def read_number(path: str) -> int | None:
    """A file that holds a decimal number."""
    return parse_int(read_text(path))


def link_target(path: str) -> str:
    """The name of what a link leads to."""
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return ""


def name_and_user(folder: str) -> dict[str, str]:
    """Of the process whose folder below /proc this is; "" = it is gone, or not ours to see."""
    return {"name": read_text(os.path.join(folder, "comm"), 64), "user": _owner(folder)}


def _owner(folder: str) -> str:
    import pwd

    try:
        uid = os.stat(folder).st_uid
    except OSError:
        return ""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def boot_id() -> str:
    """Changes at every boot; ``""`` where the kernel does not tell."""
    return read_text("/proc/sys/kernel/random/boot_id", 64)


def host_id() -> str:
    """The same for all that share this machine, its network and its current boot."""
    return f"{boot_id()}:{link_target('/proc/self/ns/net')}"
