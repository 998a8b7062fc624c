"""Libraries are looked for without the compilers that Python would start.

asyncssh asks ``ctypes.util.find_library`` for liboqs when it is imported. What ``ldconfig`` does
not list, that function seeks with gcc and ld, several processes for each name, although the dynamic
linker would load nothing that only they find.
"""

from __future__ import annotations

import ctypes.util
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LINKERS_CACHE = Path("/etc/ld.so.cache")
Search = Callable[[str], str | None]


@contextmanager
def without_compilers(cache: Path = LINKERS_CACHE) -> Iterator[None]:
    """While it lasts, libraries that the dynamic linker does not know are not searched for."""
    search: Search = ctypes.util.find_library
    known = _known_libraries(cache)

    def find(name: str) -> str | None:
        return search(name) if known is None or f"lib{name}.".encode() in known else None

    ctypes.util.find_library = find
    try:
        yield
    finally:
        ctypes.util.find_library = search  # type: ignore[assignment]


def _known_libraries(cache: Path) -> bytes | None:
    """Text that has the names of all libraries; None where they cannot be known that way."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        listed = cache.read_bytes()
        folders = [Path(p) for p in os.environ.get("LD_LIBRARY_PATH", "").split(":") if p]
        own = [os.fsencode(f.name) for path in folders if path.is_dir() for f in path.iterdir()]
    except OSError:
        return None
    return b"\0".join([listed, *own])
