"""Rules of a workload.yaml: what they may say, and how those are told who break them."""

from __future__ import annotations

import pytest

from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.parameter_conflicts import condition_holds
from orchestrator.core.model.workload import Condition, ParameterRule, Workload
from orchestrator.parsing.inputs.workloads.jobs import make_job
from orchestrator.parsing.inputs.workloads.workload_file import load_workload

TEXT = """
name: demo
entry: train.py
default_preset: tiny
presets:
  tiny: {least: 2}
  big: {rows: 0, most: 900}
parameters:
  batch: {type: int, default: 6, min: 1, choices: [auto]}
  rows: {type: int, default: 12, min: 0}
  rate: {type: float, default: 0.5}
  engine: {type: choice, choices: [auto, plain, fused], default: auto}
  small: {type: bool, default: false}
  data: {type: str, default: ""}
  least: {type: int, default: 1}
  most: {type: int, default: 100}
rules:
  - when: {batch: auto}
    require: {rows: {min: 1}}
    why: rows must not depend on what fits
  - {when: {small: true}, require: {engine: {not: plain}, rate: [0, 1]}, why: it is fused}
  - require: {most: {min: least}}
    why: it goes from one to the other
  - {when: {data: {not: ""}, rows: {min: 50, max: 70}}, require: {small: true}, why: it is large}
"""


def demo() -> Workload:
    return load_workload(TEXT, "w.yaml", "/p")


def refused(*given: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        make_job(demo(), given)
    return caught.value


def test_rules_are_read() -> None:
    """A value is short for a list of one; values have the types of their parameters."""
    first, second, third, _ = demo().rules

    assert first == ParameterRule(
        when=(Condition(parameter="batch", any_of=("auto",)),),
        require=(Condition(parameter="rows", min=1),),
        why="rows must not depend on what fits",
        place="w.yaml:18:5",
    )
    assert second.require == (
        Condition(parameter="engine", none_of=("plain",)),
        Condition(parameter="rate", any_of=(0.0, 1.0)),
    )
    assert third.when == ()
    assert third.require == (Condition(parameter="most", min="least"),)


@pytest.mark.parametrize(
    "given,what,remedy",
    [
        (
            "batch=auto rows=0",
            "batch=auto (--set) does not go with rows=0 (--set)",
            "set rows >= 1, or batch other than auto",
        ),
        (
            "preset=big batch=auto",
            "batch=auto (--set) does not go with rows=0 (preset big)",
            "set rows >= 1, or batch other than auto",
        ),
        (
            "small=yes",
            "small=true (--set) does not go with rate=0.5 (default)",
            "set rate=0|1, or small=false",
        ),
        (
            "small=yes rate=1 engine=plain",
            "small=true (--set) does not go with engine=plain (--set)",
            "set engine=auto|fused, or small=false",
        ),
        (
            "small=yes engine=plain",
            "small=true (--set) does not go with engine=plain (--set) and rate=0.5 (default)",
            "set engine=auto|fused and rate=0|1, or small=false",
        ),
        (
            "most=1",
            "most=1 (--set) does not go with least=2 (preset tiny)",
            "set most >= least",
        ),
        (
            f"data={'d' * 70} rows=70",
            f"data={'d' * 57}... (--set) and rows=70 (--set) do not go with small=false (default)",
            "set small=true, or data='', or rows < 50, or rows > 70",
        ),
    ],
)
def test_a_contradiction_names_values_where_they_came_from_and_what_to_change(
    given: str, what: str, remedy: str
) -> None:
    """Exit code 2; the rule's own reason, and where it stands."""
    error = refused(*given.split())

    assert (error.exit_code, error.id) == (2, "workload.contradiction")
    assert (error.where, error.what, error.remedy) == ("workload demo", what, remedy)
    assert "w.yaml:" in error.why


def test_all_contradictions_are_told_at_once() -> None:
    error = refused("batch=auto", "rows=0", "most=1")

    head, first, second = error.what.splitlines()
    assert head == "2 contradictions"
    assert first == (
        "  batch=auto (--set) does not go with rows=0 (--set): rows must not depend on what fits; "
        "set rows >= 1, or batch other than auto"
    )
    assert second == (
        "  most=1 (--set) does not go with least=2 (preset tiny): it goes from one to the other; "
        "set most >= least"
    )
    assert "w.yaml" in error.why


@pytest.mark.parametrize(
    "given",
    [
        "batch=auto",
        "batch=7 rows=0",
        "preset=big",
        "preset=big batch=auto rows=1",
        "small=yes rate=1",
        "most=2",
        "preset= most=1",
        "data=x rows=49",
        "data=x rows=71",
        "data=x rows=60 small=yes rate=0",
    ],
)
def test_what_does_not_contradict_itself_is_taken(given: str) -> None:
    make_job(demo(), given.split())


@pytest.mark.parametrize(
    "old,new,expected",
    [
        ("when: {batch", "when: {bacth", "18:12: rules[0].when.bacth: unknown parameter 'bacth'"),
        ("when: {batch", "when: {bacth", "did you mean 'batch'?"),
        ("require: {rows", "require: {row", "did you mean 'rows'?"),
        ("{batch: auto}", "{batch: atuo}", "expected int >= 1 or auto, found the text 'atuo'"),
        ("{batch: auto}", "{batch: 0}", "expected int >= 1 or auto, found the number 0"),
        ("[0, 1]", "[0, true]", "rules[1].require.rate: expected float, found true"),
        ("[0, 1]", "[0, [1]]", "found a list"),
        ("[0, 1]", "[]", "needs at least 1"),
        ("{min: 1}", "{mni: 1}", "unknown key 'mni'; did you mean 'min'?"),
        ("{min: 1}", "{}", "a condition needs any_of, not, min or max"),
        ("{min: 1}", "{min: true}", "expected a number or a parameter's name, found true"),
        ("{min: least}", "{min: leastt}", "unknown parameter 'leastt'; did you mean 'least'?"),
        ("{min: least}", "{min: data}", "rules[2].require.most.min: data is not always a number"),
        ("{min: least}", "{min: batch}", "batch is not always a number"),
        ("{not: plain}", "{min: 1}", "engine is not always a number"),
        ("{most: {min: least}}", "{most: {min: 3}}", "without when, require compares parameters"),
        ("require: {rows: {min", "require: {batch: {min", "batch is in both when and require"),
        ("require: {rows: {min: 1}}", "require: {}", "needs at least 1"),
        ("    why: rows must not depend on what fits\n", "", "key 'why' is missing in rules[0]"),
        ("why: rows must not depend on what fits", 'why: ""', "rules[0].why"),
        ("{least: 2}", "{least: 101}", "6:3: preset tiny: most=100 (default) does not go with"),
        ("{least: 2}", "{least: 101}", "least=101 (preset): it goes from one to the other"),
        ("default: 100}", "default: 0}", "the defaults: most=0 (default) does not go with least=1"),
    ],
)
def test_rules_that_make_no_sense_are_refused(old: str, new: str, expected: str) -> None:
    """With file:line and the nearest name; so are presets that break them."""
    broken = TEXT.replace(old, new, 1)

    assert broken != TEXT
    with pytest.raises(UsageError) as caught:
        load_workload(broken, "w.yaml", "/p")
    said = str(caught.value).replace("\n  next: ", "; ")
    assert expected in said
    assert "w.yaml:" in said


@pytest.mark.parametrize(
    "condition,value,expected",
    [
        (Condition(parameter="n", min=2), 2, True),
        (Condition(parameter="n", min=2), 1, False),
        (Condition(parameter="n", max=2), 2, True),
        (Condition(parameter="n", max=2), 3, False),
        (Condition(parameter="n", min="m"), 5, True),
        (Condition(parameter="n", min="m"), 4, False),
        (Condition(parameter="n", max="m"), 6, False),
        (Condition(parameter="n", any_of=(1, 3)), 3, True),
        (Condition(parameter="n", any_of=(1, 3)), 2, False),
        (Condition(parameter="n", none_of=(1, 3)), 3, False),
        (Condition(parameter="n", none_of=(1, 3), min=2), 4, True),
        (Condition(parameter="n", none_of=(1, 3), min=2), 1, False),
    ],
)
def test_all_of_a_condition_has_to_hold(condition: Condition, value: int, expected: bool) -> None:
    assert condition_holds(condition, {"n": value, "m": 5}) is expected
