"""Which machine this is, and which of its boots."""

from __future__ import annotations

import os


def boot_id() -> str:
    """Changes at every boot; ``""`` where the kernel does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read(64).strip()
    except OSError:
        return ""


def host_id() -> str:
    """The same for all that share this machine, its network and its current boot."""
    try:
        namespace = os.readlink("/proc/self/ns/net")
    except OSError:
        namespace = ""
    return f"{boot_id()}:{namespace}"
