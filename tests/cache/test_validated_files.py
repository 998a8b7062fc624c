"""A file that was validated before is what validating it anew gives, to the byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.catalog.bundled import bundled_root
from orchestrator.adapters.catalog.catalog import Catalog
from orchestrator.core.base.codec import to_json
from orchestrator.parsing.inputs.workloads import workload_file

BUNDLED = sorted(bundled_root().glob("workloads/*/workload.yaml"))


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(tmp_path, {"HOME": str(tmp_path), "ORCHESTRATE_HOME": str(tmp_path / "home")})


@pytest.mark.parametrize("path", BUNDLED, ids=lambda path: path.parent.name)
def test_a_workload_is_the_same_when_read_again(
    catalog: Catalog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exports of one job are equal byte for byte, so 1 and 1.0 are not the same here."""
    first = to_json(catalog.read_workload(path))
    monkeypatch.setattr(workload_file, "load_workload", None)

    assert repr(to_json(catalog.read_workload(path))) == repr(first)
