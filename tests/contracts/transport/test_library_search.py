"""asyncssh is imported without the compilers that its own import would start."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.adapters.transport.asyncssh.library_search import may_be_installed
from tests.time_limits import scaled

PROGRAM = """
import sys

started = []
sys.addaudithook(lambda name, told: started.append(told[0]) if name == "subprocess.Popen" else None)
import orchestrator.adapters.transport.asyncssh.async_ssh
import ctypes.util

assert ctypes.util.find_library.__module__ == "ctypes.util"
print(*started)
"""


@pytest.mark.processes
def test_no_compiler_is_started() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=scaled(60),
        check=True,
        cwd=Path(__file__).parents[3],
    )
    assert {Path(program).name for program in done.stdout.split()} <= {"ldconfig"}


def test_what_the_linkers_cache_lacks_is_not_searched(tmp_path: Path) -> None:
    cache = tmp_path / "ld.so.cache"
    cache.write_bytes(b"\0libnettle.so.8\0/lib/libnettle.so.8\0")
    assert may_be_installed("nettle", {}, cache)
    assert not may_be_installed("oqs", {}, cache)
    assert not may_be_installed("liboqs", {}, cache)


def test_where_the_cache_cannot_tell_the_search_goes_on(tmp_path: Path) -> None:
    cache = tmp_path / "ld.so.cache"
    assert may_be_installed("oqs", {}, cache)
    cache.write_bytes(b"")
    assert may_be_installed("oqs", {"LD_LIBRARY_PATH": "/opt/lib"}, cache)
    assert not may_be_installed("oqs", {"LD_LIBRARY_PATH": ""}, cache)
