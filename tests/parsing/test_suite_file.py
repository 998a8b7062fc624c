"""Suites that are wrong are refused with file, line and the nearest valid name; those that are
bundled name what exists.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from orchestrator.adapters.catalog.catalog import Catalog
from orchestrator.core.base.errors import UsageError
from orchestrator.core.suite.suite_model import Suite
from tests.architecture.source import ROOT

SUITE = """\
name: s
steps:
  - name: one
    workload: sleep
    parameters: {lines: 20}
  - name: two
    workload: finetune
    preset: tiny
    after: [one]
    optional: true
    requires: {gpus: 1, tools: [nsys]}
    captures: [power, profile=5@10]
"""


def load(text: str, folder: Path) -> Suite:
    path = folder / "s.yaml"
    path.write_text(text)
    return Catalog.from_environment(os.environ, project=ROOT).read_suite(path, "s.yaml")


def test_a_suite_is_read(tmp_path: Path) -> None:
    one, two = load(SUITE, tmp_path).steps

    assert one.settings == ("lines=20",)
    assert (two.settings, two.after, two.optional) == (("preset=tiny",), ("one",), True)
    assert (two.needs.gpus, two.needs.tools, two.place) == (1, ("nsys",), "s.yaml:6:5")


@pytest.mark.parametrize(
    "old, new, place, problem",
    [
        ("optional", "optionalx", "10:5", "unknown key 'optionalx'; 'optional'"),
        ("gpus: 1", "gpu: 1", "11:16", "unknown key 'gpu'; 'gpus'"),
        ("name: two", "name: one", "6:11", "two steps are called 'one' (the first at line 3)"),
        ("[one]", "[onee]", "9:13", "no step is called 'onee'; 'one'"),
        ("[one]", "[two]", "9:12", "steps wait for each other: two -> two; 'two'"),
        ("workload: sleep", "workload: slep", "4:15", "unknown workload 'slep'; 'sleep'"),
        ("lines: 20", "line: 20", "5:18", "sleep has no parameter 'line'; 'lines'"),
        ("lines: 20", "lines: many", "5:25", "lines: expected int"),
        ("lines: 20", "lines: 0", "5:25", "lines: expected int >= 1"),
        ("preset: tiny", "preset: tyni", "8:13", "finetune has no preset 'tyni'; 'tiny'"),
        ("power,", "pwer,", "12:15", "no capture is called 'pwer'; 'power'"),
        ("name: two", "name: a b", "6:11", "steps[1].name"),
        ("[nsys]", "['-x']", "11:33", "steps[1].requires.tools[0]"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    tmp_path: Path, old: str, new: str, place: str, problem: str
) -> None:
    """``problem``: what is wrong, and behind a ``;`` what the remedy names."""
    with pytest.raises(UsageError) as refused:
        load(SUITE.replace(old, new), tmp_path)

    assert refused.value.where == f"s.yaml:{place}"
    what, _, remedy = problem.partition("; ")
    assert what in refused.value.what
    assert remedy in refused.value.remedy


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    text = SUITE.replace("sleep", "slep").replace("[one]", "[onee]").replace("tiny", "tyni")

    with pytest.raises(UsageError, match="3 problems"):
        load(text, tmp_path)


def test_values_that_contradict_each_other_are_refused_at_their_step(tmp_path: Path) -> None:
    text = SUITE.replace("sleep", "serve").replace("{lines: 20}", "{engine: vllm}")

    with pytest.raises(UsageError) as refused:
        load(text, tmp_path)
    assert refused.value.where == "s.yaml:3:5"


def test_a_cycle_is_shown_from_step_to_step(tmp_path: Path) -> None:
    text = SUITE.replace("parameters: {lines: 20}", "after: [two]")

    with pytest.raises(UsageError, match="one -> two -> one"):
        load(text, tmp_path)


BUNDLED = sorted(path.stem for path in (ROOT / "suites").glob("*.yaml"))


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_suites_name_workloads_and_parameters_that_exist(name: str) -> None:
    catalog = Catalog.from_environment({"ORCHESTRATE_HOME": "/nonexistent"}, project=ROOT)
    suite = catalog.read_suite(catalog.find_suite(name))

    assert suite.name == name
    assert suite.summary


def test_the_bundled_suites() -> None:
    assert {"b200x8", "nebius2x8", "quick", "smoke"} <= set(BUNDLED)
