"""The list of deliberate bugs does not rot: each can be put in, and its tests are there."""

from __future__ import annotations

import ast
from collections.abc import Sequence

import pytest
from mutants_lib.catalog import MUTANTS
from mutants_lib.mutant import Mutant
from mutants_lib.trial import Phase, Trial
from mutants_lib.verdicts import Fate, judge

from tests.architecture.source import ROOT

PARTS = "core engine adapters/store adapters/transport node_agent cli view".split()
SOME = Mutant(name="m", promise="p", file="f.py", old="a", new="b", tests=("tests/t.py::test_x",))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_can_be_put_in(mutant: Mutant) -> None:
    """Its old text is in its file once, what comes out is Python, and it is another program."""
    text = (ROOT / mutant.file).read_text("utf-8")

    mutated = ast.parse(mutant.applied(text))

    assert ast.dump(mutated) != ast.dump(ast.parse(text))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_its_tests_are_there(mutant: Mutant) -> None:
    """Files and, where they are named, the functions in them."""
    assert mutant.tests
    for selection in mutant.tests:
        file, _, name = selection.partition("::")
        tree = ast.parse((ROOT / file).read_text("utf-8"))
        functions = ast.FunctionDef | ast.AsyncFunctionDef
        tests = {node.name for node in tree.body if isinstance(node, functions)}
        assert not name or name.partition("[")[0] in tests, selection


def test_no_part_is_left_to_luck() -> None:
    """Every part has its bugs, and every bug a name of its own."""
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    for part in PARTS:
        assert any(m.file.startswith(f"orchestrator/{part}/") for m in MUTANTS), part


def phase(name: str, outcome: str, *, loads: bool = True) -> Phase:
    return Phase(test="tests/t.py::test_x[1]", phase=name, outcome=outcome, loads=loads)


UP = phase("setup", "passed")


@pytest.mark.parametrize(
    "phases,timed_out,fate",
    [
        ([UP, phase("call", "failed")], False, Fate.CAUGHT),
        ([UP], True, Fate.CAUGHT),
        ([UP, phase("call", "passed")], False, Fate.SURVIVED),
        ([UP, phase("call", "failed", loads=False)], False, Fate.BROKEN),
        ([phase("collect", "failed", loads=False)], False, Fate.BROKEN),
        ([phase("setup", "failed")], False, Fate.BROKEN),
        ([UP, phase("call", "skipped")], False, Fate.BROKEN),
        ([], False, Fate.BROKEN),
        ([], True, Fate.BROKEN),
    ],
)
def test_only_a_test_that_ran_catches(phases: Sequence[Phase], timed_out: bool, fate: Fate) -> None:
    """A bug that does not load, and a selection that runs nothing, prove nothing."""
    trial = Trial(phases=tuple(phases), timed_out=timed_out, seconds=1.0, output="")
    assert judge(SOME, trial).fate is fate


def test_a_selection_is_sound_if_it_ran_and_passed() -> None:
    """A test whose name only begins like it is another one."""
    passed = Trial(phases=(UP, phase("call", "passed")), timed_out=False, seconds=1.0, output="")
    assert passed.is_sound("tests/t.py::test_x")
    assert passed.is_sound("tests/t.py")
    assert not passed.is_sound("tests/t.py::test_")
    torn = Trial(
        phases=(*passed.phases, phase("teardown", "failed")),
        timed_out=False,
        seconds=1.0,
        output="",
    )
    assert not torn.is_sound("tests/t.py::test_x")
