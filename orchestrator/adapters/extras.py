"""The command that installs an extra; not by this project's name, which on PyPI is another's."""

from __future__ import annotations

import shlex
import sys
from importlib import metadata
from pathlib import Path

import orchestrator


def install_command(extra: str) -> str:
    """What installs ``extra`` for the interpreter that runs: from the checkout, in place so that
    its code stays the one that runs, else by the requirements that the installed package names.
    """
    pip = shlex.join([sys.executable, "-m", "pip", "install"])
    checkout = Path(orchestrator.__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file():
        return f"{pip} -e {shlex.quote(f'{checkout}[{extra}]')}"
    return f"{pip} {shlex.join(_requirements(extra))}"


def _requirements(extra: str) -> list[str]:
    """As the metadata of the installed package names them: ``uvicorn>=0.54; extra == 'serve'``."""
    found = []
    for line in metadata.requires("orchestrate") or ():
        requirement, _, marker = line.partition(";")
        if marker.strip().replace('"', "'") == f"extra == '{extra}'":
            found.append(requirement.strip())
    return found
