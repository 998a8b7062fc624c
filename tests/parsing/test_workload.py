"""Workloads: their declaration."""

from __future__ import annotations

import pytest

from orchestrator.core.model.load import LoadMode, LoadTerms, Scenario
from orchestrator.core.model.workload import (
    Gate,
    ParameterType,
    Per,
    SampleSource,
    Shape,
)
from orchestrator.parsing.inputs.workloads.jobs import load_terms, make_job
from orchestrator.parsing.inputs.workloads.workload_file import load_workload
from tests.parsing.demo_workload import TEXT, demo, refusal

DIVISIBLE = """
name: demo
entry: work.py
shape: divisible
samples: {file: dataset, count: samples, group: batch}
parameters:
  dataset: {type: str, default: ""}
  samples: {type: int, default: 60}
  batch: {type: int, default: 8, min: 1}
"""


def test_divisible_work_says_what_its_samples_are() -> None:
    """Three parameters by name."""
    workload = load_workload(DIVISIBLE, "w.yaml", "/p")
    assert workload.samples == SampleSource(file="dataset", count="samples", group="batch")


@pytest.mark.parametrize(
    "old,new,expected",
    [
        ("count: samples", "count: sample", ["w.yaml:5:", "samples.count", "samples'"]),
        ("group: batch", "group: dataset", ["w.yaml:5:", "dataset is of type str, not int"]),
        ("file: dataset", "file: batch", ["w.yaml:5:", "batch is of type int, not str"]),
        ("file: dataset", "filee: dataset", ["unknown key 'filee'", "file"]),
        ("shape: divisible", "shape: rigid", ["divisible and the section samples go together"]),
        ("samples: {file", "metrics: {}  # {file", ["go together"]),
    ],
)
def test_samples_that_make_no_sense_are_refused(old: str, new: str, expected: list[str]) -> None:
    """With file:line and the nearest name."""
    said = refusal(DIVISIBLE.replace(old, new, 1))
    for words in expected:
        assert words in said, said


LOADED = DIVISIBLE.replace(
    "parameters:\n",
    """notice: not a result
load:
  rules: rules
  scenario: scenario
  mode: mode
  benchmark: benchmark
  target_qps: target_qps
  min_duration: min_duration
  answer: tokens
parameters:
  rules: {type: choice, choices: [none, short], default: none}
  scenario: {type: choice, choices: [offline, server], default: offline}
  mode: {type: choice, choices: [performance, accuracy], default: performance}
  benchmark: {type: choice, choices: [llama2-70b], default: llama2-70b}
  target_qps: {type: float, default: 0}
  min_duration: {type: float, default: 0}
""",
)


def test_a_load_generator_asks_only_where_rules_are_chosen() -> None:
    """With the values of the parameters that the section names."""
    workload = load_workload(LOADED, "w.yaml", "/p")
    assert workload.notice == "not a result"
    assert load_terms(make_job(workload)) is None
    assert load_terms(make_job(load_workload(DIVISIBLE, "w.yaml", "/p"))) is None
    asked = ("rules=short", "scenario=server", "mode=accuracy", "target_qps=2.5", "min_duration=3")
    assert load_terms(make_job(workload, asked)) == LoadTerms(
        rules="short",
        scenario=Scenario.SERVER,
        mode=LoadMode.ACCURACY,
        benchmark="llama2-70b",
        target_qps=2.5,
        min_duration_s=3.0,
        answer="tokens",
    )


@pytest.mark.parametrize(
    "old,new,expected",
    [
        ("mode: mode\n", "mode: mod\n", ["w.yaml:10:", "load.mode", "is not declared", "'mode'"]),
        ("[offline, server]", "[offline, online]", ["other than offline, server", "online"]),
        ("rules: {type: choice, choices: [none, short]", "rules: {type: str", ["of type str"]),
        ("target_qps: {type: float", "target_qps: {type: int", ["is of type int, not float"]),
        ("samples: {file", "metrics: {}  # {file", ["needs the section samples"]),
    ],
)
def test_a_load_that_makes_no_sense_is_refused(old: str, new: str, expected: list[str]) -> None:
    text = LOADED.replace("shape: divisible", "shape: rigid") if "metrics" in new else LOADED
    assert old in text
    said = refusal(text.replace(old, new, 1))
    assert [words for words in expected if words not in said] == []


def test_a_declaration_is_read() -> None:
    """Every field arrives, typed."""
    workload = demo()

    assert (workload.name, workload.entry, workload.folder) == ("demo", "train.py", "/p/w")
    assert workload.shape is Shape.LOCAL_ROUNDS
    assert (workload.ranks.per, workload.ranks.cpu) == (Per.GPU, 2)
    assert workload.modules == ("torch", "torch.nn")
    assert workload.parameters["rate"].type is ParameterType.FLOAT
    assert workload.parameters["rate"].default == 1.0
    assert workload.parameters["steps"].place == "w/workload.yaml:13:3"
    assert workload.presets["big"]["packing"] is False
    assert workload.metrics["loss"].gate == Gate(max=0.5)
    assert workload.artifacts == ("adapter", "loss.jsonl")
    assert workload.failures == {"MY-MODEL-001": "name another model"}


SERVING = """
name: demo
entry: ask.py
inference:
  model: model
  prompt_words: words
  tokens_per_word: 1.5
  answer: answer
  in_flight: batch
  figures: {throughput: tokens_per_s}
  only: {dtype: bf16}
parameters:
  model: {type: str, default: ""}
  words: {type: int, default: 48}
  answer: {type: int, default: 16}
  batch: {type: int, default: 4}
  rate: {type: float, default: 10}
  dtype: {type: choice, choices: [fp32, bf16], default: fp32}
"""


def test_a_workload_of_inference_says_what_is_asked() -> None:
    found = load_workload(SERVING, "w.yaml", "/p").inference

    assert found is not None
    assert (found.model, found.in_flight, found.shared) == ("model", "batch", False)
    assert (found.rate, found.engines, found.context) == (None, None, None)
    assert (found.figures.throughput, found.figures.token) == ("tokens_per_s", None)
    assert [each.parameter for each in found.only] == ["dtype"]


@pytest.mark.parametrize(
    "old, new, expected",
    [
        ("answer: answer", "answer: answers", ["w.yaml:8:", "inference.answer", "'answer'"]),
        ("in_flight: batch", "in_flight: rate", ["w.yaml:9:", "is of type float, not int"]),
        ("in_flight: batch", "in_flight: batch\n  rate: batch", ["is of type int, not float"]),
        ("dtype: bf16", "dtipe: bf16", ["w.yaml:11:", "did you mean 'dtype'?"]),
        ("tokens_per_word: 1.5", "tokens_per_word: 0", ["w.yaml:7:", "tokens_per_word"]),
        ("  model: model", "  program: lazy\n  model: model", ["w.yaml:5:", "inference.program"]),
        ("in_flight: batch", "tensor_parallel: rate", ["is of type float, not int"]),
    ],
)
def test_what_inference_is_predicted_from_has_to_be_there(
    old: str, new: str, expected: list[str]
) -> None:
    said = refusal(SERVING.replace(old, new, 1))

    for words in expected:
        assert words in said, said


TRAINED = """
name: demo
entry: train.py
training:
  model: model
  rows: rows
  sequence: length
  accumulation: rows
  global_rows: rows
  adapter_rank: rows
  steps: rows
  texts: {tokens: 113, targets: 0.32, only: {dataset: ""}}
parameters:
  model: {type: str, default: ""}
  dataset: {type: str, default: ""}
  rows: {type: int, default: 1}
  length: {type: int, default: 256}
"""


def test_a_workload_of_training_says_what_its_rows_are_made_of() -> None:
    found = load_workload(TRAINED, "w.yaml", "/p").training

    assert found is not None
    assert found.texts is not None
    assert (found.texts.tokens, found.texts.targets) == (113, 0.32)
    assert [each.parameter for each in found.texts.only] == ["dataset"]


@pytest.mark.parametrize(
    "old, new, expected",
    [
        ("tokens: 113", "tokens: 0", ["w.yaml:12:", "texts.tokens"]),
        ("targets: 0.32", "targets: 1.5", ["w.yaml:12:", "texts.targets"]),
        ("{dataset:", "{datasett:", ["w.yaml:12:", "did you mean 'dataset'?"]),
    ],
)
def test_texts_that_make_no_sense_are_refused(old: str, new: str, expected: list[str]) -> None:
    said = refusal(TRAINED.replace(old, new, 1))

    for words in expected:
        assert words in said, said


@pytest.mark.parametrize("id", ["my-model-001", "MODEL-001", "MY-MODEL-1", "MY MODEL-001"])
def test_ids_of_failures_are_of_one_form(id: str) -> None:
    said = refusal(TEXT.replace("MY-MODEL-001", id))

    assert "w.yaml:23:" in said
    assert "not an id of a failure, such as MY-MODEL-001" in said


@pytest.mark.parametrize(
    "change,expected",
    [
        (("entry: train.py", "entry: ../x.py"), "must be a path inside the workload's folder"),
        (("entry: train.py", "entry: /x.py"), "must be a path inside the workload's folder"),
        (("entry: train.py\n", ""), "key 'entry' is missing"),
        (
            ("shape: local-rounds", "shape: elastic"),
            "is not one of rigid, independent, divisible, local-rounds",
        ),
        (("cpu: 2", "cpu: 0"), "ranks.cpu: must be greater than or equal to 1"),
        (("requires: {modules: [torch", "requires: {modules: [os;x"), "not a Python module name"),
        (("tiny: {steps: 5}", "tiny: {stesp: 5}"), "preset tiny: unknown parameter 'stesp'"),
        (("tiny: {steps: 5}", "tiny: {steps: 0}"), "steps: expected int >= 1"),
        (("tiny: {steps: 5}", "tiny: {steps: yes}"), "found the text 'yes'"),
        (("default_preset: tiny", "default_preset: tine"), "did you mean 'tiny'?"),
        (
            ("default: 60", "default: true"),
            "steps: expected int >= 1 and <= 1000 (steps), found tr",
        ),
        (("default: fp32", "default: fp16"), "dtype: expected one of bf16, fp32"),
        (("type: choice, choices: [bf16, fp32]", "type: choice"), "go together"),
        (("model: {type: str,", "model: {type: str, min: 1,"), "bounds do not apply to type str"),
        (("model: {type: str,", "model: {type: str, multiple_of: 2,"), "multiple_of does not"),
        (("rate: {type: float", "rate: {type: float, multiple_of: 2"), "multiple_of does not"),
        (("org/big", "a;b"), "model: expected text without a semicolon, found the text 'a;b'"),
        (("'[^;]*'", "'[^;*'"), "pattern is no regular expression"),
        ((", form: text without a semicolon", ""), "pattern and form, which says it in words"),
        (('model: {type: str, default: ""', "model: {type: int, default: 1"), "pattern does not"),
        (("min: 1, max: 1000", "min: 9, max: 1"), "min 9 is above max 1"),
        (("gate: {max: 0.5}", "gate: {}"), "a gate needs min, max or both"),
        (("  steps: {type", "  preset: {type"), "not a parameter name"),
        (("required: true", "required: on"), "expected true or false, found the text 'on'"),
        (("summary: A demonstration", 'summary: "\\e[31mred"'), "holds a control character"),
        (("artifacts: [adapter", "artifacts: [../adapter"), "must be a path inside"),
    ],
)
def test_wrong_declarations_are_refused(change: tuple[str, str], expected: str) -> None:
    """Contradictions inside a declaration are found before anything runs."""
    broken = TEXT.replace(*change, 1)

    assert broken != TEXT
    assert expected in refusal(broken)
    assert "w.yaml:" in refusal(broken)


@pytest.mark.parametrize(
    "says, required",
    [
        ("gate: {max: 0.5}", True),
        ("required: false, gate: {max: 0.5}", False),
        ("required: true", True),
        ("direction: lower", False),
    ],
)
def test_a_gated_figure_must_come_unless_the_workload_says_otherwise(
    says: str, required: bool
) -> None:
    """A gate that nothing is held against would pass."""
    text = TEXT.replace("direction: lower, required: true, gate: {max: 0.5}", says)
    assert load_workload(text, "w.yaml", "/p").metrics["loss"].required is required
