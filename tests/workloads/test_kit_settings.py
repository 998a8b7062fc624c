"""`kit.parse`: names and types from a script's dataclass, all else from its workload.yaml."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import orchestrate_kit as kit

DECLARED = """
name: any
summary: Anything, 100 % of it
parameters:
  steps: {type: int, default: 5, min: 1, choices: [auto], unit: steps, help: how many}
  rate: {type: float, default: 1, above: 0, below: 2}
  kind:
    type: choice
    choices: [red, "on"]
    default: "on"
    help: 50 % of each
  name_of: {type: str, default: "", pattern: '[^;]*', form: text without a semicolon}
  loud: {type: bool, default: true}
rules:
- when: {kind: red}
  require: {rate: {min: 1}, loud: false}
  why: red is that way
"""
SCRIPT = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Union

@dataclass(frozen=True)
class Settings:
    steps: Union[int, str]
    rate: float
    kind: str
    name_of: str
    loud: bool
"""

Load = Callable[..., Any]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Writes a workload with its script two folders below, and loads the script's dataclass."""
    folder = tmp_path / "any" / "inner" / "base"
    folder.mkdir(parents=True)

    def loaded(script: str = SCRIPT, declared: str = DECLARED) -> Any:
        (tmp_path / "any" / "workload.yaml").write_text(declared, encoding="utf-8")
        path = folder / "settings.py"
        path.write_text(script, encoding="utf-8")
        spec = importlib.util.spec_from_file_location("settings_of_a_test", path)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules["settings_of_a_test"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.Settings

    yield loaded
    sys.modules.pop("settings_of_a_test", None)


def test_everything_but_names_and_types_comes_from_the_declaration(load: Load) -> None:
    """Defaults of the declared types: a whole number is a float where one is declared."""
    settings = kit.parse(load(), [])

    assert vars(settings) == {
        "steps": 5,
        "rate": 1.0,
        "kind": "on",
        "name_of": "",
        "loud": True,
    }
    assert isinstance(settings.rate, float)


def test_the_command_line_wins(load: Load) -> None:
    """Words in place of numbers, names with dashes, the opposite of a switch, empty texts."""
    words = ["--steps=auto", "--rate", "1.5", "--name-of=", "--no-loud", "--kind=red"]
    settings = kit.parse(load(), words)

    assert (settings.steps, settings.rate, settings.kind) == ("auto", 1.5, "red")
    assert (settings.name_of, settings.loud) == ("", False)
    assert kit.parse(load(), ["--no-loud", "--loud"]).loud is True


def test_without_words_it_is_the_command_line_of_the_process(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--steps=7"])

    assert kit.parse(load()).steps == 7


@pytest.mark.parametrize(
    "words, complaint",
    [
        (["--steps=0"], "argument --steps: expected int >= 1 (steps) or auto, found 0"),
        (["--steps=1.5"], "expected int >= 1 (steps) or auto, found '1.5'"),
        (["--name-of=a;b"], "expected text without a semicolon, found 'a;b'"),
        (["--rate=2"], "expected float > 0 and < 2, found '2'"),
        (["--rate=nan"], "expected float > 0 and < 2, found 'nan'"),
        (["--kind=blue"], "argument --kind: expected one of red, on, found 'blue'"),
        (["--step=1"], "unrecognized arguments: --step=1"),
        (["--kind=red"], "--kind red needs --no-loud: red is that way"),
        (
            ["--kind=red", "--rate=0.5"],
            "--kind red needs --rate of at least 1 and --no-loud: red is that way",
        ),
    ],
)
def test_what_makes_no_sense_ends_the_process(
    load: Load, words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, two lines: how it is used, and the option with what was expected."""
    with pytest.raises(SystemExit, match="2"):
        kit.parse(load(), words)

    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: ")
    assert error.endswith(complaint)


def test_help_shows_what_is_declared(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        kit.parse(load(), ["--help"])

    shown = " ".join(capsys.readouterr().out.split())
    for text in (
        "Anything, 100 % of it",
        "how many (int >= 1 (steps) or auto; default: 5)",
        "50 % of each (one of red, on; default: on)",
        "(text without a semicolon; default: empty)",
        "--loud (default: yes) --no-loud the opposite",
    ):
        assert text in shown


@pytest.mark.parametrize(
    "old, new, complaint",
    [
        (
            "loud: bool",
            "loud: bool = True",
            "Settings.loud has a default: .*workload.yaml declares",
        ),
        ("    rate: float\n", "", "Settings.rate is missing: .*workload.yaml declares it"),
        ("rate: float", "rates: float", "Settings.rates is not a parameter .* mean rate?"),
        ("rate: float", "rate: int", "Settings.rate is not of the type float"),
        ("Union[int, str]", "int", "Settings.steps is not of the type typing.Union.int, str."),
        ("@dataclass(frozen=True)\n", "", "Settings is not a dataclass"),
    ],
)
def test_a_script_that_declares_anything_again_is_refused(
    load: Load, old: str, new: str, complaint: str
) -> None:
    """A default, another name or another type in the script is a fault of the script."""
    with pytest.raises(kit.DeclarationError, match=complaint):
        kit.parse(load(SCRIPT.replace(old, new)), [])


@pytest.mark.parametrize(
    "old, new, complaint",
    [
        ("default: 5, ", "", "parameter steps: it needs a default, and a type"),
        ("default: 5", "default: 0", "parameter steps: expected int >= 1"),
        ("type: int", "type: integer", "parameter steps: it needs a default, and a type"),
        ("pattern: '[^;]*', ", "", "parameter name_of: pattern and form, which says it in"),
        ("'[^;]*'", "'[^;*'", "parameter name_of: pattern is no regular expression"),
        ('default: ""', "default: a;b", "parameter name_of: expected text without a semicolon"),
        ("min: 1", "mim: 1", "parameter steps: mim: 1 makes no sense here"),
        ("above: 0", "above: zero", "parameter rate: above: 'zero' makes no sense"),
        ("kind: red}", "kin: red}", "rule 1: unknown parameter kin"),
        ("{min: 1}, loud", "{mim: 1}, loud", "a condition for rate has unknown keys"),
        ("parameters:\n", "parameters: none\nother:\n", "parameters: expected names"),
        ("- when: {kind: red}\n  require", "  require", "rules: expected a list"),
    ],
)
def test_a_declaration_that_makes_no_sense_is_refused(
    load: Load, old: str, new: str, complaint: str
) -> None:
    """With the file, the parameter and what is wrong, whoever starts the script."""
    with pytest.raises(kit.DeclarationError, match=rf"workload.yaml: {complaint}|^{complaint}"):
        kit.parse(load(declared=DECLARED.replace(old, new, 1)), [])


def test_without_a_declaration_it_says_so(load: Load, tmp_path: Path) -> None:
    settings = load()
    (tmp_path / "any" / "workload.yaml").unlink()

    with pytest.raises(
        kit.DeclarationError, match=r"^no workload\.yaml in .*, or in a folder above"
    ):
        kit.parse(settings, [])
