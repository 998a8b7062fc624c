"""The Offline scenario with an engine that needs no model, and samples handed out by the kit."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlperf.engines import Completion, Refusal
from mlperf.offline import Phases, Unrepeatable, answer_prompts, measure_pace, warm_up
from mlperf.parameters import Parameters
from mlperf.prompts import Prompt, generate_prompt
from mlperf.scoring import rouge_l
from orchestrate_kit import _samples
from tests.workloads.declared import declared


class Echo:
    """Answers with the prompt's own words; first tokens come after 0.25 s, others 0.5 s apart."""

    def __init__(self) -> None:
        self.fingerprint = "echo"
        self.batches: list[list[str]] = []

    def generate(
        self, prompts: Sequence[Prompt], begun: Callable[[int], None] | None = None
    ) -> list[Completion | Refusal]:
        self.batches.append([prompt.text for prompt in prompts])
        for place in range(len(prompts)) if begun else ():
            begun(place)
        return [self._answer(prompt.text.split()) for prompt in prompts]

    def _answer(self, words: Sequence[str]) -> Completion | Refusal:
        if "unanswerable" in words:
            return Refusal(reason="unanswerable")
        return Completion(
            text=" ".join(words),
            tokens=tuple(map(len, words)),
            finish_reason="stop",
            prompt_tokens=10,
            first_token_s=0.25,
            last_token_s=0.25 + 0.5 * (len(words) - 1),
        )


class Forgetful(Echo):
    """Never gives the same answer twice."""

    def __init__(self) -> None:
        super().__init__()
        self._count = itertools.count()

    def _answer(self, words: Sequence[str]) -> Completion | Refusal:
        return super()._answer([*words, str(next(self._count))])


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    """As if started by hand in an empty folder; gives what was written there."""
    for name in ("RANK", "WORLD_SIZE", "ORCHESTRATE_SAMPLES", "ORCHESTRATE_OUTPUT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_samples, "_at_work", [])

    def written() -> list[dict[str, Any]]:
        lines = (tmp_path / "output" / "samples-0.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    return written


def _data_set(folder: Path, *lines: object) -> str:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def test_generated_prompts_are_answered_in_fixed_groups(alone: Any) -> None:
    """Each index once, in batches of the group; what is told holds no times."""
    engine = Echo()
    answer_prompts(engine, declared(Parameters, samples=10, batch=4, seed=5, prompt_words=9))

    texts = [generate_prompt(index, seed=5, words=9).text for index in range(10)]
    assert engine.batches == [texts[:4], texts[4:8], texts[8:]]
    assert [line["index"] for line in alone()] == list(range(10))
    assert all(set(line) == {"index", "text", "tokens", "finish_reason"} for line in alone())
    assert [line["text"] for line in alone()] == texts


def test_a_sample_that_makes_no_sense_fails_alone(
    alone: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line of another form and a prompt that the engine refuses: the others are answered."""
    lines = ({"prompt": "one two"}, {"text": "?"}, {"prompt": "unanswerable"}, {"prompt": "three"})
    engine = Echo()
    answer_prompts(
        engine, declared(Parameters, dataset=_data_set(tmp_path, *lines), samples=0, batch=4)
    )

    assert engine.batches == [["one two", "unanswerable", "three"]]
    assert [(line["index"], line["text"]) for line in alone()] == [(0, "one two"), (3, "three")]
    told = capsys.readouterr().err
    assert "sample 1 failed: neither {prompt: text}" in told
    assert "sample 2 failed: unanswerable" in told


def test_a_group_without_any_sense_is_no_batch(alone: Any, tmp_path: Path) -> None:
    """Nothing is asked of the engine, and the next group is answered."""
    lines = ({}, {}, {"prompt": "one"})
    engine = Echo()
    phases = answer_prompts(
        engine, declared(Parameters, dataset=_data_set(tmp_path, *lines), samples=0, batch=2)
    )

    assert engine.batches == [["one"]]
    assert phases.prompt_tokens == 10


def test_a_worker_tells_what_its_model_is(
    alone: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The engine's fingerprint is part of the first thing that the coordinator hears of it."""
    monkeypatch.setenv("ORCHESTRATE_SAMPLES", "leased")
    monkeypatch.setenv("ORCHESTRATE_EXCHANGE_DIR", str(tmp_path))
    inbox = tmp_path / "in" / "rank-0"
    inbox.mkdir(parents=True)
    (inbox / "00000001.json").write_text('{"type": "end"}')
    answer_prompts(Echo(), declared(Parameters))
    first, *_ = map(json.loads, (tmp_path / "exchange-0.jsonl").read_text().splitlines())

    assert (first["type"], first["identity"]) == ("worker", "echo")


def test_prefill_and_decode_are_told_apart(alone: Any, tmp_path: Path) -> None:
    """Prompt tokens by the time to the first token; all but the first tokens by the rest."""
    lines = ({"prompt": "a b c d e"}, {"prompt": "f g h"}, {"prompt": "i j k"})
    phases = answer_prompts(
        Echo(), declared(Parameters, dataset=_data_set(tmp_path, *lines), samples=0, batch=2)
    )

    assert phases == Phases(prompt_tokens=30, prefill_s=0.5, decoded_tokens=8, decode_s=3.0)
    assert phases.rates() == {"prefill_tokens_per_s": 60.0, "decode_tokens_per_s": 8 / 3}
    assert Phases().rates() == {}


def test_under_load_first_tokens_and_samples_are_told(
    alone: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without LoadGen neither is: outputs stay the bytes that they were."""
    begun: list[int] = []
    monkeypatch.setattr("orchestrate_kit.first_token", lambda sample: begun.append(sample.index))
    answer_prompts(Echo(), declared(Parameters, samples=3, batch=2))
    assert begun == []
    assert "sample" not in alone()[0]

    monkeypatch.setattr(_samples, "_at_work", [])
    answer_prompts(Echo(), declared(Parameters, samples=3, batch=2, rules="short"))
    assert begun == [0, 1, 2]
    assert [line["sample"] for line in alone()] == [0, 1, 2]


@pytest.mark.parametrize("scenario,size", [("offline", 4), ("server", 1), ("multi-stream", 1)])
def test_the_pace_is_that_of_groups_as_they_will_come(scenario: str, size: int) -> None:
    """Some of them, none of which the warm-up has had."""
    engine = Echo()
    parameters = declared(Parameters, batch=4, rules="short", scenario=scenario)
    warm_up(engine, parameters)
    warm = {text for batch in engine.batches for text in batch}
    engine.batches.clear()

    assert measure_pace(engine, parameters) > 0
    assert {len(batch) for batch in engine.batches} == {size}
    assert not warm & {text for batch in engine.batches for text in batch}


def test_a_machine_that_does_not_repeat_itself_is_not_trusted() -> None:
    """The same prompts twice before any sample is asked for: equal answers, or an error."""
    engine = Echo()
    warm_up(engine, declared(Parameters))
    assert engine.batches[0] == engine.batches[1]

    with pytest.raises(Unrepeatable, match="differently the second time"):
        warm_up(Forgetful(), declared(Parameters))


def test_answers_are_scored_beside_the_expected_ones(alone: Any, tmp_path: Path) -> None:
    """Those that a line has; a line whose expected answer is no text fails by itself."""
    lines = (
        {"prompt": "one two three", "expected": "one two three"},
        {"prompt": "one two three", "expected": "Three, one! Two."},
        {"prompt": "one"},
        {"prompt": "one", "expected": 1},
    )
    parameters = declared(Parameters, dataset=_data_set(tmp_path, *lines), samples=0, batch=4)
    answer_prompts(Echo(), parameters)
    assert [line.get("score") for line in alone()] == [
        {"exact_match": 1.0, "rouge_l": 1.0},
        {"exact_match": 0.0, "rouge_l": pytest.approx(2 / 3)},
        None,
    ]


words = st.lists(st.sampled_from("abc"), max_size=7)


@given(words, words)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(
    answer: list[str], expected: list[str]
) -> None:
    """By trying all subsequences."""
    found = {c for n in range(len(answer) + 1) for c in itertools.combinations(answer, n)}
    common = [n for n in range(len(expected) + 1) if found & {*itertools.combinations(expected, n)}]
    longest = max(common)
    recall, precision = (longest / len(text) if text else 0.0 for text in (expected, answer))
    f1 = 2 * recall * precision / (recall + precision) if longest else 0.0
    assert rouge_l(answer, expected) == pytest.approx(f1)
