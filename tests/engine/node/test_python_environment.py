"""Environments that are built for ranks: what the launcher needs is in them."""

from __future__ import annotations

import tomllib

import pytest

from orchestrator.core.launchers.ray import RAY
from orchestrator.engine.node.python_environment import add_requirement
from tests.architecture.source import ROOT


def test_ray_is_the_build_that_is_tested() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["ray"] == [RAY.requirement]
    assert RAY.requirement in (ROOT / "requirements" / "dev.lock").read_text().splitlines()


@pytest.mark.parametrize(
    "given", [b"torch==2.13.0\n", b"torch==2.13.0", b"rays>=1\n", b"# ray\nx\n"]
)
def test_ray_is_added(given: bytes) -> None:
    assert (
        add_requirement(given, RAY.requirement)
        == given.rstrip(b"\n") + b"\n" + RAY.requirement.encode() + b"\n"
    )


@pytest.mark.parametrize("given", [b"ray\n", b"x\n  Ray[default]==2.50 ; python_version > '3'\n"])
def test_what_the_user_says_about_ray_stands(given: bytes) -> None:
    assert add_requirement(given, RAY.requirement) == given
