"""Workloads travel apart, but their tests share a process: no two have modules of one name."""

from __future__ import annotations

from collections import Counter

from tests.architecture.source import ROOT


def test_modules_of_workloads_have_names_of_their_own() -> None:
    folders = [path for path in (ROOT / "workloads").iterdir() if path.is_dir()]
    names = Counter(
        module.stem
        for folder in folders
        for module in folder.iterdir()
        if module.suffix == ".py" or (module / "__init__.py").exists()
    )
    assert len(names) > 20
    assert [name for name, count in names.items() if count > 1] == []
