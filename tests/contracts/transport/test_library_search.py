"""asyncssh is imported without the compilers that the search for its libraries would start."""

from __future__ import annotations

import ctypes.util
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.adapters.transport.asyncssh.library_search import without_compilers
from tests.architecture.source import ROOT

pytestmark = pytest.mark.processes

IMPORTING = """
import sys
started = []
sys.addaudithook(lambda event, told: started.append(told[0]) if event == "subprocess.Popen" else 0)
from orchestrator.adapters.transport.asyncssh import async_ssh
print(*(str(program).rpartition("/")[2] for program in started))
"""


def test_no_compiler_is_started() -> None:
    """Only ldconfig is asked, for what the dynamic linker knows."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert set(done.stdout.split()) <= {"ldconfig"}


@pytest.mark.parametrize("listed", [b"", b"ld.so-1.7.0 libqos.so.4 libqo.so"])
def test_what_the_linker_does_not_know_is_not_searched_for(
    listed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(ctypes.util, "find_library", asked.append)
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    (tmp_path / "cache").write_bytes(listed)

    with without_compilers(tmp_path / "cache"):
        assert ctypes.util.find_library("oqs") is None

    assert asked == []


@pytest.mark.parametrize("known_by", ["cache", "path", "nothing"])
def test_what_it_may_know_is_searched_for_as_ever(
    known_by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Listed, in a folder of LD_LIBRARY_PATH, or where there is no list."""
    search = "liboqs.so.9: {}".format
    monkeypatch.setattr(ctypes.util, "find_library", search)
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{tmp_path / 'none'}::{tmp_path / 'own'}")
    (tmp_path / "own").mkdir()
    if known_by == "path":
        (tmp_path / "own" / "liboqs.so.9").touch()
    if known_by != "nothing":
        text = b"x\0liboqs.so.9\0/lib/liboqs.so.9\0" if known_by == "cache" else b""
        (tmp_path / "cache").write_bytes(text)

    with without_compilers(tmp_path / "cache"):
        assert ctypes.util.find_library("oqs") == "liboqs.so.9: oqs"

    assert ctypes.util.find_library is search
