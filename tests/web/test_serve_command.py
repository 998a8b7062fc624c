"""What `orchestrate serve` refuses before it serves anything."""

from __future__ import annotations

import importlib.util
import socket
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from orchestrator.adapters.extras import install_command
from orchestrator.adapters.web.settings import TOKEN_VARIABLE
from orchestrator.cli.main import main

TOKEN = "a token that only this test has"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORCHESTRATE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


@pytest.mark.parametrize(
    "words, said",
    [
        (["--listen", "0.0.0.0:8765"], "no token is set"),
        (["--allow-stop"], "needs a token"),
        (["--listen", "localhost"], "not HOST:PORT"),
        (["--token-file", "/nonexistent"], "cannot be read"),
        (["--token", TOKEN], "No such option"),
    ],
)
def test_what_is_not_safe_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_weak_token_is_refused_and_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "hunter2")

    assert main(["serve"]) == 2
    shown = capsys.readouterr()
    assert TOKEN_VARIABLE in shown.err
    assert "hunter2" not in shown.err + shown.out


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec

    def hide(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "uvicorn" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", hide)

    assert main(["serve"]) == 2
    said = f"the page needs uvicorn\n  next: {install_command('serve')}"
    assert said in capsys.readouterr().err


@pytest.mark.processes
def test_a_port_that_is_taken_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        assert main(["serve", "--listen", f"127.0.0.1:{port}"]) == 2

    shown = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1:{port}" in shown
    assert "in use" in shown
