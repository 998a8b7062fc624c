"""asyncssh, imported without starting a compiler.

At import it asks ``ctypes.util.find_library`` for three libraries of rare algorithms. For one that
is not installed that function runs ldconfig, gcc and ld: some ten processes, for each of our
commands that connects anew. The linker's own cache tells at once that there is nothing to find.
"""

from __future__ import annotations

import ctypes.util
import importlib
import os
from collections.abc import Mapping
from pathlib import Path

CACHE = Path("/etc/ld.so.cache")
# Libraries that these name are in no cache.
ELSEWHERE = ("LD_LIBRARY_PATH", "LIBRARY_PATH")


def import_asyncssh() -> None:
    """The first import of asyncssh in this process."""
    search = ctypes.util.find_library

    def search_if_there(name: str) -> str | None:
        return search(name) if may_be_installed(name, os.environ) else None

    ctypes.util.find_library = search_if_there
    try:
        importlib.import_module("asyncssh")
    finally:
        ctypes.util.find_library = search


def may_be_installed(name: str, environment: Mapping[str, str], cache: Path = CACHE) -> bool:
    """Whether a search for the shared library ``name`` could find it."""
    if any(environment.get(variable) for variable in ELSEWHERE):
        return True
    try:
        return f"lib{name}.so".encode() in cache.read_bytes()
    except OSError:  # no glibc: other systems search without a compiler
        return True
