"""What workload.yaml refuses before anything is contacted is what the script refuses by itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from io import StringIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orchestrate_kit as kit
from acceptance.base.options import Options
from finetune.base.settings import Settings
from loadtest.load.settings import Settings as LoadSettings
from mlperf.parameters import Parameters
from orchestrator.adapters.store.data_set import sample_set
from orchestrator.core.base.errors import UsageError
from orchestrator.core.model.parameter_conflicts import find_contradictions
from orchestrator.core.model.workload import Parameter, ParameterType, Workload
from orchestrator.parsing.inputs.workloads.jobs import make_job
from orchestrator.parsing.inputs.workloads.parameters import parse_value
from serve.run import Settings as ServeSettings
from tests.workloads.conftest import (
    acceptance_workload,
    bundled_workload,
    finetune_workload,
    mlperf_workload,
)

SCRIPTS: dict[str, tuple[Workload, type[Any]]] = {
    "finetune": (finetune_workload(), Settings),
    "acceptance": (acceptance_workload(), Options),
    "mlperf": (mlperf_workload(), Parameters),
    "loadtest": (bundled_workload("loadtest"), LoadSettings),
    "serve": (bundled_workload("serve"), ServeSettings),
}


@dataclass(frozen=True)
class Wrong:
    """Settings that break one rule of a workload, and what would mend them, way by way."""

    workload: str
    rule: int
    settings: str
    mended: tuple[str, ...]


WRONG = (
    Wrong("finetune", 0, "micro_batch=auto global_batch=0", ("global_batch=1", "micro_batch=1")),
    Wrong("finetune", 0, "preset=qwen2-7b micro_batch=auto", ("global_batch=1", "micro_batch=1")),
    Wrong("finetune", 1, "engine=fused lora_dropout=0.1", ("lora_dropout=0", "engine=plain")),
    Wrong("finetune", 1, "engine=fused gradient_checkpointing=true", ("engine=auto",)),
    Wrong("finetune", 2, "fp8=true engine=plain", ("engine=auto", "engine=fused", "fp8=false")),
    Wrong("finetune", 2, "fp8=true lora_dropout=0.1", ("lora_dropout=0", "fp8=false")),
    Wrong("finetune", 2, "fp8=true gradient_checkpointing=true", ("fp8=false",)),
    Wrong("finetune", 3, "shard=on engine=plain", ("engine=fused", "shard=auto", "shard=off")),
    Wrong("finetune", 3, "shard=on lora_dropout=0.1", ("lora_dropout=0", "shard=off")),
    Wrong("finetune", 3, "shard=on gradient_checkpointing=true", ("shard=auto",)),
    Wrong("finetune", 4, "shard=on fp8=true", ("fp8=false", "shard=off")),
    Wrong("finetune", 5, "shard=on oom=retry", ("oom=fail", "shard=auto")),
    Wrong(
        "finetune",
        6,
        "round_exchange=gradients round_steps=20",
        ("round_steps=auto", "round_exchange=changes"),
    ),
    Wrong("finetune", 6, "round_exchange=gradients inner_scaling=none", ("round_exchange=auto",)),
    Wrong(
        "finetune",
        6,
        "round_exchange=gradients round_compression=bf16",
        ("round_compression=int8",),
    ),
    Wrong(
        "finetune",
        7,
        "round_exchange=gradients outer_learning_rate=0.7",
        ("outer_learning_rate=1",),
    ),
    Wrong("finetune", 7, "round_exchange=gradients outer_momentum=0.9", ("outer_momentum=0",)),
    Wrong("acceptance", 0, "max_bytes=16", ("min_bytes=16", "max_bytes=4096")),
    Wrong("mlperf", 0, "shape=qwen2-7b model=folder", ("model=", "shape=none")),
    Wrong("mlperf", 1, "scenario=server", ("rules=short", "scenario=offline")),
    Wrong("mlperf", 1, "mode=accuracy", ("rules=short", "mode=performance")),
    Wrong("mlperf", 1, "target_qps=2", ("rules=short", "target_qps=0")),
    Wrong("mlperf", 1, "min_duration=5", ("rules=short", "min_duration=0")),
    Wrong("mlperf", 2, "rules=official min_duration=5", ("min_duration=0", "rules=short")),
    Wrong("mlperf", 3, "samples=0", ("samples=1", "dataset=prompts.jsonl")),
    Wrong("loadtest", 0, "arrival=trace", ("trace=t.jsonl", "arrival=poisson")),
    Wrong("loadtest", 1, "trace=t.jsonl", ("arrival=trace",)),
    Wrong("loadtest", 2, "shape=qwen2-7b model=folder", ("model=", "shape=none")),
    Wrong("loadtest", 2, "shape=qwen2-7b engine=vllm", ("engine=builtin", "shape=none")),
    Wrong("loadtest", 2, "shape=qwen2-7b endpoint=http://127.0.0.1:1", ("endpoint=", "shape=none")),
    Wrong("loadtest", 3, "engine=custom", ("command=server", "engine=builtin")),
    Wrong("loadtest", 4, "command=server", ("engine=custom",)),
    Wrong("loadtest", 5, "cross_check=aiperf arrival=ramp", ("arrival=poisson",)),
    Wrong("loadtest", 5, "cross_check=aiperf prompts=p.jsonl", ("cross_check=none",)),
    Wrong("loadtest", 6, "cross_check=guidellm arrival=gamma", ("arrival=poisson",)),
    Wrong("loadtest", 7, "cross_check_program=/opt/vllm", ("cross_check=vllm",)),
    Wrong("loadtest", 7, "cross_check_tokenizer=here", ("cross_check=vllm",)),
    Wrong("serve", 0, "shape=qwen2-7b model=folder", ("model=", "shape=none")),
    Wrong("serve", 0, "shape=qwen2-7b engine=custom command=server", ("shape=none",)),
    Wrong("serve", 1, "engine=custom", ("command=server", "engine=builtin")),
    Wrong("serve", 2, "command=server", ("engine=custom",)),
    Wrong("serve", 3, "engine=vllm", ("model=folder", "engine=builtin")),
    Wrong("serve", 4, "tensor_parallel=2", ("tensor_parallel=1",)),
)


def script_takes(workload: str, argv: Sequence[str]) -> bool:
    """Whether the script accepts this command line."""
    _, settings = SCRIPTS[workload]
    with redirect_stderr(StringIO()):
        try:
            kit.parse(settings, list(argv))
        except SystemExit as refused:
            return refused.code != 2
    return True


def declared_takes(workload: Workload, given_settings: Sequence[str]) -> bool:
    """Whether anything would be contacted for these settings."""
    try:
        sample_set(make_job(workload, given_settings))
    except UsageError:
        return False
    return True


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.settings)
def test_a_declared_rule_is_the_scripts_too(wrong: Wrong) -> None:
    """Both refuse it; what mends it for one does so for the other."""
    workload, _ = SCRIPTS[wrong.workload]
    words = wrong.settings.split()
    job = make_job(replace(workload, rules=()), words)

    (broken,) = find_contradictions(workload.rules, job.values)
    assert broken.rule is workload.rules[wrong.rule]
    assert not declared_takes(workload, words)
    assert not script_takes(wrong.workload, job.argv())
    for mended in wrong.mended:
        assert mended.partition("=")[0] in broken.remedy(workload.parameters)
        assert script_takes(wrong.workload, make_job(workload, [*words, mended]).argv())


def test_every_rule_is_tried() -> None:
    """Every requirement of every rule of the bundled workloads."""
    tried = {
        (wrong.workload, wrong.rule, unmet.parameter)
        for wrong in WRONG
        for unmet in find_contradictions(
            SCRIPTS[wrong.workload][0].rules,
            make_job(replace(SCRIPTS[wrong.workload][0], rules=()), wrong.settings.split()).values,
        )[0].unmet
    }
    declared = {
        (name, index, condition.parameter)
        for name, (workload, _) in SCRIPTS.items()
        for index, rule in enumerate(workload.rules)
        for condition in rule.require
    }

    assert tried == declared


def candidates(parameter: Parameter) -> list[str]:
    """Values at both sides of its bounds, and all words."""
    if parameter.type is ParameterType.BOOL:
        return ["true", "false"]
    if parameter.type is ParameterType.STR:
        return [""]
    numbers = {0, 1, 64}
    for bound in (parameter.min, parameter.max, parameter.above, parameter.below):
        if bound is not None:
            numbers |= {bound, bound + 1, bound - 1}
    whole = parameter.type is ParameterType.INT
    shown = [str(int(number)) if whole else repr(float(number)) for number in sorted(numbers)]
    return [*parameter.choices, *(() if parameter.type is ParameterType.CHOICE else shown)]


def is_valid(parameter: Parameter, text: str) -> bool:
    try:
        parse_value(parameter, text)
    except ValueError:
        return False
    return True


@st.composite
def some_settings(draw: st.DrawFn, workload: Workload) -> dict[str, str]:
    """A valid value for each parameter that a rule speaks of."""
    speaking = {
        name
        for rule in workload.rules
        for condition in (*rule.when, *rule.require)
        for name in (condition.parameter, *condition.bounding)
    }
    texts = {name: candidates(parameter) for name, parameter in workload.parameters.items()}
    return {
        name: draw(
            st.sampled_from(
                [text for text in texts[name] if is_valid(workload.parameters[name], text)]
            )
        )
        for name in sorted(speaking)
    }


def words_of(workload: Workload, values: dict[str, str]) -> list[str]:
    """The script's command line, as somebody would type it."""
    words = []
    for name, value in values.items():
        flag = name.replace("_", "-")
        if workload.parameters[name].type is ParameterType.BOOL:
            words.append(f"--{flag}" if value == "true" else f"--no-{flag}")
        else:
            words.append(f"--{flag}={value}")
    return words


def agree(name: str, values: dict[str, str]) -> bool:
    """Whether both take or refuse these; a bound that only the declaration has is no harm."""
    workload, _ = SCRIPTS[name]
    given_settings = ["preset=", *(f"{key}={value}" for key, value in values.items())]
    taken = script_takes(name, words_of(workload, values))
    if declared_takes(workload, given_settings):
        return taken
    return not taken or not declared_takes(replace(workload, rules=()), given_settings)


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_is_taken_before_any_contact_no_rank_refuses(name: str) -> None:
    """Each parameter by itself, at both sides of each of its bounds."""
    for parameter in SCRIPTS[name][0].parameters.values():
        for text in candidates(parameter):
            assert agree(name, {parameter.name: text}), f"{parameter.name}={text}"


@pytest.mark.parametrize(
    "name", [name for name, (workload, _) in SCRIPTS.items() if workload.rules]
)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_the_declaration_and_the_script_agree(name: str, data: st.DataObject) -> None:
    """Neither refuses what the other would take, whatever parameters with rules are set to."""
    values = data.draw(some_settings(SCRIPTS[name][0]))
    assert agree(name, values)
