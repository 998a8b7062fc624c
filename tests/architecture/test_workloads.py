"""Workloads are packages of their own: they know nothing of the program, nor of each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter

from tests.architecture.source import ROOT, Module, files, imports, modules

WORKLOADS = ROOT / "workloads"
MAX_FILES = 16
# The folders of a workload, lowest first: modules import from their own and from those before it.
FOLDERS = {
    "acceptance": "base measure judge show".split(),
    "loadtest": "base judge client peers load show".split(),
    "finetune": "base data fused model training rounds".split(),
    "large": [],
    "memory": [],
    "mlperf": [],
    "moe": [],
    "quality": [],
    "ray_cluster": [],
    "serve": [],
    "stress": [],
    "tp_check": [],
}


def test_a_glance_takes_in_every_folder() -> None:
    sizes = Counter(path.parent for path in files() if path.is_relative_to(WORKLOADS))

    assert sum(sizes.values()) > 80
    assert {folder: size for folder, size in sizes.items() if size > MAX_FILES} == {}


def test_workloads_know_nothing_of_the_program() -> None:
    """They are driven by files and variables alone, and run without it."""
    wrong = [
        module.at(node)
        for module in modules("workloads")
        for node, name in imports(module)
        if name.split(".")[0] in {"orchestrator", "scripts", "tests"}
    ]

    assert wrong == []


def test_a_workload_names_its_modules_relatively() -> None:
    """A copy of it under another name is another workload; two may have modules of one name."""
    wrong = [
        module.at(node)
        for module, _ in _inside()
        for node, name in imports(module)
        if name.startswith("workloads.") != bool(getattr(node, "level", 0))
        or name.split(".")[0] in FOLDERS
    ]

    assert wrong == []


def test_folders_of_a_workload_import_from_lower_ones_only() -> None:
    wrong = [
        f"{module.at(node)} {name}"
        for module, folder in _inside()
        for node, name in imports(module)
        if name.startswith("workloads.") and not _may(module, folder, name.split(".")[2])
    ]

    assert wrong == []


def test_no_modules_of_a_workload_import_each_other_in_a_circle() -> None:
    graph = {module.name: set[str]() for module, _ in _inside()}
    for module, _ in _inside():
        for _, name in imports(module):
            known = name if name in graph else name.rpartition(".")[0]
            graph[module.name] |= {known} & graph.keys() - {module.name}

    assert sum(map(len, graph.values())) > 150
    assert list(TopologicalSorter(graph).static_order())


def _inside() -> Iterator[tuple[Module, str]]:
    """Every module of every workload that is a package, and its folder there; "" is the top."""
    for module in modules("workloads"):
        workload, folder, *_ = (*module.path.relative_to(WORKLOADS).parent.parts, "", "")
        if workload in FOLDERS:
            yield module, folder


def _may(module: Module, folder: str, target: str) -> bool:
    """The script at the top may import everything."""
    order = FOLDERS[module.path.relative_to(WORKLOADS).parts[0]]
    if not folder:
        return True
    return target in order[: order.index(folder) + 1]
