"""What the mlperf script takes on its command line; prompts and lines of data sets."""

from __future__ import annotations

from typing import Any

import pytest

import orchestrate_kit as kit
from mlperf.parameters import Parameters
from mlperf.prompts import Prompt, generate_prompt, parse_prompt
from tests.workloads.conftest import FINETUNE, MLPERF, WORKLOADS, mlperf_workload

WORKLOAD = mlperf_workload()


@pytest.mark.parametrize("preset", list(WORKLOAD.presets))
def test_every_preset_is_a_command_line(preset: str) -> None:
    """The script takes what the preset says."""
    values = WORKLOAD.presets[preset]
    argv = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    parameters = kit.parse(Parameters, argv)

    assert {name: getattr(parameters, name) for name in values} == dict(values)


@pytest.mark.parametrize(
    "options",
    [
        ["--batch=0"],
        ["--max-new-tokens=0"],
        ["--threads=0"],
        ["--samples=0"],
        ["--samples=-1", "--dataset=prompts.jsonl"],
        ["--dtype=fp8"],
        ["--sample=3"],
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and the name of the option, before anything is loaded."""
    with pytest.raises(SystemExit, match="2"):
        kit.parse(Parameters, options)

    assert options[0].partition("=")[0] in capsys.readouterr().err


def test_all_of_a_file_is_no_sample_count() -> None:
    """0 means every line there is."""
    assert kit.parse(Parameters, ["--samples=0", "--dataset=prompts.jsonl"]).samples == 0


def test_one_environment_serves_all_workloads_with_models() -> None:
    """Environments are named by the digest of the requirements: the same bytes, the same one."""
    folders = (MLPERF, FINETUNE, WORKLOADS / "power")

    assert len({(folder / "requirements.txt").read_bytes() for folder in folders}) == 1


def test_a_generated_prompt_depends_on_index_and_seed_alone() -> None:
    """The same text in any order; lengths differ, within what was asked for."""
    texts = [generate_prompt(index, seed=3, words=20).text for index in range(50)]

    assert [generate_prompt(i, seed=3, words=20).text for i in reversed(range(50))] == texts[::-1]
    assert generate_prompt(7, seed=4, words=20).text != texts[7]
    assert len(set(texts)) == 50
    lengths = {len(text.partition(": ")[2].split()) for text in texts}
    assert max(lengths) == 20
    assert min(lengths) < 10


def test_lines_of_a_data_set_are_texts_or_chats() -> None:
    """Either form; what else stands in the line does not matter."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]

    assert parse_prompt({"prompt": "Once upon", "id": 7}) == Prompt(text="Once upon")
    assert parse_prompt({"messages": messages}) == Prompt(messages=tuple(messages))


@pytest.mark.parametrize(
    "data",
    [
        None,
        "text",
        [],
        {},
        {"prompt": ""},
        {"prompt": 3},
        {"messages": []},
        {"messages": "Hi"},
        {"messages": ["Hi"]},
        {"messages": [{"content": "Hi"}]},
        {"messages": [{"role": 1, "content": "Hi"}]},
    ],
)
def test_other_lines_are_named_for_what_they_lack(data: Any) -> None:
    """Not an error of the run: the scenario fails that sample with this reason."""
    with pytest.raises(ValueError, match="neither"):
        parse_prompt(data)
