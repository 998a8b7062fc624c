"""Playbooks: what is wrong is said with file, line and what to do."""

from __future__ import annotations

import os

import pytest

from orchestrator.adapters.catalog.catalog import Catalog
from orchestrator.core.base.errors import UsageError
from orchestrator.core.history.figure_gates import Quantity
from orchestrator.core.migration.playbook import Playbook
from orchestrator.parsing.inputs.migration.playbook_file import load_playbook

GOOD = """\
name: p
summary: s
suite: s
smoke: a
boxes:
  - id: speed
    title: Speed
    applies: {gpu: B200|B300, gpus: 2}
    like: {steps: [a], within: 5 %}
    gates: [{metric: a.watts, at_most: 2.4 kW, reason: r}]
expected: [{metric: a.hbm, value: 2.7 TB/s, source: t}]
"""


def test_a_playbook_is_read() -> None:
    playbook = load_playbook(GOOD.encode(), "p.yaml")
    (box,) = playbook.boxes
    assert box.like is not None
    assert (box.like.steps, box.like.within) == (("a",), 0.05)
    assert box.gates[0].at_most == Quantity(2.4, "kW")
    assert [box.applies.holds(("NVIDIA B200",) * n) for n in range(4)] == [False, False, True, True]
    assert playbook.expectations[0].value == Quantity(2.7, "TB/s")
    assert playbook.steps == ("a",)


@pytest.mark.parametrize(
    "old,new,where,word",
    [
        ("within: 5 %", "within: 5", "p.yaml:9", "put it in quotes"),
        ("within: 5 %", "within: -5 %", "p.yaml:9", "a percentage"),
        ("metric: a.watts", "metric: watts", "p.yaml:10", "named with its step"),
        ("at_most: 2.4 kW", "at_most: plenty", "p.yaml:10", "a number with a unit"),
        ("B200|B300", '"B(200"', "p.yaml:8", "not a regular expression"),
        ("2.7 TB/s", "fast", "p.yaml:11", "a number with a unit"),
        ("like:", "alike:", "p.yaml:9", "like"),
        (
            "expected:",
            "  - {id: speed, title: t, way_back: true}\nexpected:",
            "p.yaml:6",
            "two boxes",
        ),
        ("expected:", "  - {id: other, title: t}\nexpected:", "p.yaml:11", "no rule"),
        ("smoke: a\n", "", "p.yaml:1", "smoke"),
    ],
)
def test_mistakes_have_a_place(old: str, new: str, where: str, word: str) -> None:
    with pytest.raises(UsageError) as refused:
        load_playbook(GOOD.replace(old, new).encode(), "p.yaml")
    assert where in str(refused.value)
    assert word in str(refused.value)


@pytest.mark.parametrize("name", ["b200", "smoke"])
def test_bundled_playbooks_ask_for_steps_and_figures_that_exist(name: str) -> None:
    """A name that no workload declares could never close its box."""
    catalog = Catalog.from_environment(os.environ)
    playbook = catalog.read_playbook(catalog.find_playbook(name))
    suite = catalog.read_suite(catalog.find_suite(playbook.suite))
    assert set(playbook.steps) <= {step.name for step in suite.steps}
    for figure in sorted(_figures(playbook)):
        step, _, metric = figure.partition(".")
        declared = set(catalog.workload(suite.step(step).workload).metrics)
        assert metric in declared | OF_ENERGY, figure


OF_ENERGY = {"node_watts_mean", "node_watts_peak"}


def _figures(playbook: Playbook) -> set[str]:
    gates = [gate for box in playbook.boxes for gate in box.gates]
    found = {one.metric for one in (*gates, *playbook.expectations)}
    found |= {gate.of for gate in gates if gate.of}
    for box in playbook.boxes:
        if box.like:
            found |= {f"{step}.{name}" for step in box.like.steps for name in box.like.figures}
        if box.noise:
            found |= {f"{box.noise.step}.{name}" for name in (box.noise.figure, box.noise.error)}
    return found
