"""What `scripts/gpu_check` runs of the bundled suite on machines that are lent for minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
from gpu_check_lib.suite import SHORT, write_short

from orchestrator.adapters.catalog.catalog import Catalog
from tests.architecture.source import ROOT


@pytest.mark.parametrize("gpus", [1, 8])
def test_it_is_a_valid_suite(tmp_path: Path, gpus: int) -> None:
    """It names steps that the bundled one has, and parameters that their workloads have."""
    write_short(tmp_path / "b200x8.yaml", gpus)
    catalog = Catalog.from_environment({"ORCHESTRATE_HOME": "/nonexistent"}, project=ROOT)
    suite = catalog.read_suite(tmp_path / "b200x8.yaml")

    assert {step.name for step in suite.steps} == SHORT.keys()
