"""What installs an extra: never the name of this project, which on PyPI is another's."""

from __future__ import annotations

import shlex
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import orchestrator
from orchestrator.adapters.extras import install_command
from tests.architecture.source import ROOT, files

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
PIP = [sys.executable, "-m", "pip", "install"]


def test_a_checkout_is_installed_in_place() -> None:
    assert shlex.split(install_command("serve")) == [*PIP, "-e", f"{ROOT}[serve]"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_installed_package_names_the_requirements_of_its_extra(
    extra: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lines = [f"{one}; extra == '{name}'" for name, all_ in EXTRAS.items() for one in all_]
    monkeypatch.setattr(metadata, "requires", lambda _: ["click>=8.5", *lines])
    monkeypatch.setattr(orchestrator, "__file__", str(tmp_path / "orchestrator" / "__init__.py"))

    assert shlex.split(install_command(extra)) == [*PIP, *EXTRAS[extra]]


def test_nothing_tells_people_to_install_this_project_by_name() -> None:
    told = "orchestrate" + "["

    assert [path for path in files() if told in path.read_text(errors="replace")] == []
