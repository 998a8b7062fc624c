"""The values of a workload's parameters: defaults, presets and `--set`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.base.errors import UsageError
from orchestrator.parsing.inputs.workloads.jobs import make_job
from orchestrator.parsing.inputs.workloads.workload_file import load_workload
from tests.parsing.demo_workload import TEXT, demo, refusal


def test_values_come_from_defaults_then_preset_then_settings() -> None:
    """Each layer overrides the one before; the argument vector is in declared order."""
    job = make_job(demo(), ["preset=big", "dtype=bf16", "steps=7", "steps=8"])

    assert job.preset == "big"
    assert job.argv() == (
        "--steps=8",
        "--rate=1.0",
        "--width=64",
        "--ratio=0.5",
        "--model=org/big",
        "--no-packing",
        "--dtype=bf16",
    )


def test_the_default_preset_applies_and_can_be_switched_off() -> None:
    """`preset=` asks for the bare defaults."""
    assert make_job(demo()).values["steps"] == 5
    assert make_job(demo(), ["preset="]).values["steps"] == 60


@pytest.mark.parametrize(
    "setting,name,value",
    [
        ("steps=1_000", "steps", 1000),
        ("rate=1e-4", "rate", 1e-4),
        ("rate=3", "rate", 3.0),
        ("packing=no", "packing", False),
        ("packing=TRUE", "packing", True),
        ("model=a=b c", "model", "a=b c"),
        ("model=", "model", ""),
    ],
)
def test_settings_are_typed(setting: str, name: str, value: object) -> None:
    """Text becomes what the parameter is declared as."""
    found = make_job(demo(), [setting]).values[name]

    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "setting,expected",
    [
        ("steps", "--set 'steps' is not key=value"),
        ("=1", "is not key=value"),
        ("stesp=1", "did you mean 'steps'?"),
        ("preset=tine", "did you mean 'tiny'?"),
        (
            "steps=many",
            "parameter steps: expected int >= 1 and <= 1000 (steps), found the text 'many'",
        ),
        ("steps=1.5", "found the text '1.5'"),
        ("steps=0", "found the number 0"),
        ("steps=1001", "found the number 1001"),
        ("steps=9999999999999999999999", "expected int"),
        ("rate=nan", "expected float >= 0, found the number nan"),
        ("rate=inf", "found the number inf"),
        ("width=100", "expected int >= 32 and a multiple of 32, found the number 100"),
        ("ratio=0", "expected float > 0 and < 1, found the number 0.0"),
        ("ratio=1", "found the number 1.0"),
        ("rate=x", "found the text 'x'"),
        ("packing=maybe", "expected bool, found the text 'maybe'"),
        ("dtype=bf17", "expected one of bf16, fp32, found the text 'bf17'; did you mean 'bf16'?"),
        ("model=a\0b", "NUL"),
    ],
)
def test_wrong_settings_say_what_was_expected(setting: str, expected: str) -> None:
    """The parameter, its type and bounds, the value given."""
    with pytest.raises(UsageError) as caught:
        make_job(demo(), [setting])

    assert expected in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_wrong_value_says_where_the_parameter_is_declared() -> None:
    """file:line:column of the declaration."""
    with pytest.raises(UsageError) as caught:
        make_job(demo(), ["steps=0"])

    assert "at w/workload.yaml:13:3" in str(caught.value)


@given(st.text(max_size=40))
def test_any_setting_is_taken_or_refused(setting: str) -> None:
    """No text after --set fails in another way, and text parameters keep it byte by byte."""
    try:
        job = make_job(demo(), [f"model={setting}"])
    except UsageError:
        assert "\0" in setting or ";" in setting
    else:
        assert job.values["model"] == setting


def test_a_word_can_be_valid_in_place_of_a_number() -> None:
    """Declared by choices of a number; anything else is refused with what was expected."""
    text = TEXT.replace("steps: {type: int", "steps: {type: int, choices: [auto]")
    workload = load_workload(text, "w/workload.yaml", "/p/w")
    for given_value, value in (("auto", "auto"), ("7", 7)):
        assert make_job(workload, [f"steps={given_value}"]).values["steps"] == value
    for wrong in ("much", "0"):
        with pytest.raises(UsageError, match=r"expected int >= 1 and <= 1000 \(steps\) or auto"):
            make_job(workload, [f"steps={wrong}"])
    assert "choices do not apply to type str" in refusal(
        TEXT.replace("model: {type: str", "model: {type: str, choices: [auto]")
    )
