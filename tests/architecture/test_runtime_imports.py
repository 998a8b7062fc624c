"""The product imports with its dependencies alone; extras are imported where they are used."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What is imported, or run as a program, only where its library is; with a dot at its end: a folder.
BY_EXTRAS = {
    "orchestrator.adapters.web.http.",
    "orchestrator.adapters.history.postgres_database",
    "orchestrator.adapters.loadgen.program",
    "orchestrator.cli.torchx_plugin.torchx_scheduler",
}

IMPORT_ALL = """
import importlib, pkgutil, sys

hidden, by_extras = (set(words.split(",")) for words in sys.argv[1:])


class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Hidden())
import orchestrator

for module in pkgutil.walk_packages(orchestrator.__path__, "orchestrator."):
    named = module.name in by_extras or module.name.rpartition(".")[0] + "." in by_extras
    if not named and not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name.partition(".")[0] in hidden:
                print(f"{module.name} needs {error.name}")
"""


def distributions(lock: str) -> set[str]:
    """The names of a lock's packages, in lower case, with hyphens."""
    lines = (ROOT / "requirements" / lock).read_text().splitlines()
    return {line.partition("==")[0].lower() for line in lines if "==" in line}


@pytest.mark.processes
def test_every_module_imports_without_extras() -> None:
    """As for somebody who ran the first command of the README, and installed nothing else."""
    only_here = distributions("dev.lock") - distributions("runtime.lock")
    hidden = {
        module
        for module, owners in packages_distributions().items()
        if {owner.lower().replace("_", "-") for owner in owners} <= only_here
    }
    assert {"mlperf_loadgen", "torch", "ray", "sqlalchemy"} <= hidden

    argv = [sys.executable, "-c", IMPORT_ALL, ",".join(hidden), ",".join(BY_EXTRAS)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)

    assert (done.returncode, done.stdout) == (0, ""), done.stderr
