"""A parameter of a bundled workload is declared once: in its workload.yaml."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import orchestrate_kit as kit
from acceptance.base.options import Options
from finetune.base.settings import Settings
from mlperf.parameters import Parameters
from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.workload import Workload
from orchestrator.parsing.inputs.workloads.jobs import make_job
from orchestrator.parsing.inputs.workloads.workload_file import load_workload
from tests.workloads.conftest import (
    WORKLOADS,
    acceptance_workload,
    finetune_workload,
    mlperf_workload,
)

PARSERS = frozenset({"argparse", "click", "configparser", "fire", "getopt", "optparse", "typer"})
# A program of its own, which the script starts with one number.
OTHER_PROGRAMS = frozenset(
    {WORKLOADS / "acceptance" / "measure" / "pairs.py", WORKLOADS / "loadtest" / "combine.py"}
)
FOLDERS = sorted(path.parent for path in WORKLOADS.glob("*/workload.yaml"))
COPIES = (
    ("acceptance", "base.options", "Options"),
    ("finetune", "base.settings", "Settings"),
    ("mlperf", "parameters", "Parameters"),
)
SEED_OF_A_COPY = """
import importlib, sys
sys.path[:0] = sys.argv[1:3]
import orchestrate_kit as kit
settings = getattr(importlib.import_module(sys.argv[3]), sys.argv[4])
print(kit.parse(settings, []).seed, settings.__module__)
"""


def trees(folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        if path not in OTHER_PROGRAMS:
            yield path, ast.parse(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_nothing_but_the_kit_reads_the_command_line(folder: Path) -> None:
    """No parser of options, no look at the arguments, and one call of the kit's."""
    nodes = [(path, node) for path, tree in trees(folder) for node in ast.walk(tree)]
    imported = {
        name.partition(".")[0]
        for _, node in nodes
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in [getattr(node, "module", None) or "", *(alias.name for alias in node.names)]
    }
    named = [ast.unparse(node) for _, node in nodes if isinstance(node, ast.Attribute)]

    assert imported & PARSERS == set()
    assert "sys.argv" not in named
    assert named.count("kit.parse") == 1


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_fields_of_settings_have_no_values(folder: Path) -> None:
    """What `kit.parse` is given has names and types alone."""
    everything = [node for _, tree in trees(folder) for node in ast.walk(tree)]
    (given,) = {
        ast.unparse(call.args[0])
        for call in everything
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "kit.parse"
    }
    (settings,) = [
        node for node in everything if isinstance(node, ast.ClassDef) and node.name == given
    ]
    declared = [node for node in settings.body if isinstance(node, ast.AnnAssign)]

    assert len(declared) > 1
    assert [ast.unparse(node) for node in declared if node.value is not None] == []


@pytest.mark.parametrize(
    "settings, workload",
    [
        (Options, acceptance_workload()),
        (Settings, finetune_workload()),
        (Parameters, mlperf_workload()),
    ],
)
def test_without_the_coordinator_the_defaults_are_the_same(
    settings: type, workload: object
) -> None:
    """Plain python does what the coordinator would ask for without a preset."""
    asked = make_job(workload, ["preset="])  # type: ignore[arg-type]
    alone, given = kit.parse(settings, []), kit.parse(settings, asked.argv())

    assert {name: getattr(alone, name) for name in asked.values} == dict(asked.values)
    assert alone == given


@pytest.mark.processes
@pytest.mark.parametrize("name, module, settings", COPIES)
@pytest.mark.processes
def test_a_copy_under_another_name_follows_its_own_declaration(
    name: str, module: str, settings: str, tmp_path: Path
) -> None:
    """A default that is changed in its workload.yaml, and nowhere else, is the script's."""
    copy = tmp_path / "copied"
    shutil.copytree(WORKLOADS / name, copy, ignore=shutil.ignore_patterns("__pycache__"))
    declared = copy / "workload.yaml"
    text = declared.read_text(encoding="utf-8")
    before, seed, after = text.partition("  seed:\n    type: int\n    default: ")
    declared.write_text(f"{before}{seed}7{after.removeprefix('0')}", encoding="utf-8")
    words = [str(tmp_path), str(WORKLOADS), f"copied.{module}", settings]

    done = subprocess.run(
        [sys.executable, "-c", SEED_OF_A_COPY, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.split() == ["7", f"copied.{module}"]


@pytest.mark.parametrize(
    "workload, setting, form",
    [
        *(
            ("loadtest", f"endpoint={url}", "a URL such as http://HOST:8000/v1")
            for url in ("foo", "ftp://x", "http://", "http://h:99999", "http://h:0", "http://a b")
        ),
        ("power", "precisions=fp32,fp8", "a list of fp32 and bf16 with commas"),
        ("power", "batches=1,two", "a list of whole numbers from 1 on with commas"),
        ("power", "batches=0", "a list of whole numbers from 1 on with commas"),
    ],
)
def test_values_of_no_use_are_refused_before_anything_is_contacted(
    workload: str, setting: str, form: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(f"expected {form}")):
        make_job(read_workload(workload), [setting])


@pytest.mark.parametrize(
    "url", ["", "http://h", "https://a-b.c:65535/v1", "http://[::1]:8000/v1/", "http://10.0.0.1:1"]
)
def test_urls_of_servers_are_endpoints(url: str) -> None:
    assert make_job(read_workload("loadtest"), [f"endpoint={url}"]).values["endpoint"] == url


def read_workload(name: str) -> Workload:
    path = WORKLOADS / name / "workload.yaml"
    return load_workload(path.read_text(encoding="utf-8"), str(path), str(path.parent))
