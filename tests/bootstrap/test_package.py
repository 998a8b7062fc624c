"""`pip install .` gives the command together with its workloads and clusters."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.time_limits import scaled

pytestmark = pytest.mark.processes

ROOT = Path(__file__).resolve().parents[2]
BUILD_LIMIT_S = 100


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the checkout makes."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-P", "-m", "hatchling", "build", "--target=wheel"]
    subprocess.run(
        [*command, f"--directory={folder}"], cwd=ROOT, check=True, timeout=scaled(BUILD_LIMIT_S)
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the wheel is installed into, without its dependencies."""
    target = tmp_path_factory.mktemp("installed")
    options = ["--no-index", "--no-deps", "--quiet", "--disable-pip-version-check"]
    command = [sys.executable, "-P", "-m", "pip", "install", *options, f"--target={target}"]
    subprocess.run([*command, str(wheel)], check=True, timeout=scaled(BUILD_LIMIT_S))
    return target


@pytest.mark.parametrize("folder", ["workloads", "clusters", "suites"])
def test_the_wheel_carries_every_bundled_file(wheel: Path, folder: str) -> None:
    """Nothing that a checkout offers is missing after an installation, and no caches travel."""
    generated = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and not generated & set(path.parts)
    }
    prefix = "orchestrator/bundled/"
    names = zipfile.ZipFile(wheel).namelist()
    carried = {name.removeprefix(prefix) for name in names if name.startswith(prefix + folder)}

    assert expected, f"no {folder} to carry"
    assert expected == carried


def test_an_installation_finds_what_it_carries(installed: Path, tmp_path: Path) -> None:
    """The bundled folder is that of the package, from any working directory."""
    program = (
        "from orchestrator.adapters.catalog.bundled import bundled_root; print(bundled_root())"
    )

    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=scaled(60),
    )

    assert done.stdout == f"{installed / 'orchestrator' / 'bundled'}\n"


def test_an_installation_has_the_command(installed: Path, tmp_path: Path) -> None:
    """The installed `orchestrate` starts, and says its version."""
    version = subprocess.run(
        [str(installed / "bin" / "orchestrate"), "--version"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=scaled(60),
    )

    assert "orchestrate" in version.stdout
