"""The in-process engine on the generated model: the same answers wherever a group is answered."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mlperf.engines import Completion, Refusal
from mlperf.parameters import Parameters
from mlperf.prompts import Prompt, generate_prompt
from mlperf.serving_engine import ServingEngine
from orchestrate_serving.builtin import tiny_model
from tests.workloads.conftest import DEADLINE_S, WORKLOADS, node_folder, succeed
from tests.workloads.declared import declared
from tests.workloads.programs.answer_groups import answer_groups

PROGRAM = Path(__file__).parent / "programs" / "answer_groups.py"
PROMPTS = [generate_prompt(index, seed=0, words=24) for index in range(24)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of the libraries, about one another
    pytest.mark.timeout(DEADLINE_S),
]


@pytest.fixture(scope="module", autouse=True)
def unchanged_torch() -> Iterator[None]:
    """Engines set torch up for their whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def parameters(cache: Path) -> Parameters:
    return declared(Parameters, cache_dir=str(cache))


@pytest.fixture(scope="module")
def engine(parameters: Parameters) -> ServingEngine:
    return ServingEngine(parameters, 0)


def _answers(engine: ServingEngine, prompts: list[Prompt]) -> list[Completion]:
    answers = engine.generate(prompts)
    return [answer for answer in answers if isinstance(answer, Completion)]


def test_the_model_is_the_same_wherever_it_is_made(parameters: Parameters, tmp_path: Path) -> None:
    """Two nodes that share nothing make the same files, byte by byte; another seed, others."""
    folders = [
        tiny_model.ensure_model(seed, cache_dir)
        for seed, cache_dir in ((0, parameters.cache_dir), (0, str(tmp_path)), (1, str(tmp_path)))
    ]
    contents = [{file.name: file.read_bytes() for file in folder.iterdir()} for folder in folders]

    assert contents[0] == contents[1]
    assert contents[0]["model.safetensors"] != contents[2]["model.safetensors"]
    assert contents[0]["tokenizer.json"] == contents[2]["tokenizer.json"]


def test_a_group_has_the_same_bytes_in_any_process(
    engine: ServingEngine, cache: Path, tmp_path: Path
) -> None:
    """Other thread environment, other order, other groups before: not one logit differs."""
    variables = {"OMP_NUM_THREADS": "5", "MKL_NUM_THREADS": "3"}
    groups = ("8", "0", "20", "4")
    process = node_folder(tmp_path / "other").start(
        str(PROGRAM), str(WORKLOADS), str(cache), *groups, **variables
    )
    here = answer_groups(engine, [0, 4, 8])
    there = json.loads(succeed(process))

    assert {group: there[group] for group in here} == here
    assert there["20"] != here["0"]


def test_answers_end_by_themselves_or_at_the_limit(engine: ServingEngine) -> None:
    """The reason and the tokens agree; both happen with the generated model."""
    answers = _answers(engine, PROMPTS)
    end = engine.model.tokenizer.eos_token_id

    for answer in answers:
        assert (answer.finish_reason == "stop") == (answer.tokens[-1] == end)
        assert end not in answer.tokens[:-1]
        assert len(answer.tokens) == 16 or answer.finish_reason == "stop"
        kept = [token for token in answer.tokens if token != end]
        assert answer.text == engine.model.tokenizer.decode(kept, skip_special_tokens=True)
    assert {answer.finish_reason for answer in answers} == {"stop", "length"}


def test_padding_does_not_reach_the_answers(engine: ServingEngine) -> None:
    """A prompt that is answered alone gets the tokens that it gets among longer ones."""
    together = _answers(engine, PROMPTS[:6])

    assert [_answers(engine, [prompt])[0].tokens for prompt in PROMPTS[:6]] == [
        answer.tokens for answer in together
    ]
    assert len({answer.prompt_tokens for answer in together}) > 1


def test_times_tell_prefill_from_decode(parameters: Parameters) -> None:
    """Every answer of a batch has its first token together, and its last one when it came."""
    engine = ServingEngine(replace(parameters, batch=len(PROMPTS)), 0)
    began = time.perf_counter()
    answers = _answers(engine, PROMPTS)
    passed = time.perf_counter() - began
    engine.close()

    assert len({answer.first_token_s for answer in answers}) == 1
    by_length = sorted(answers, key=lambda answer: len(answer.tokens))
    times = [answer.last_token_s for answer in by_length]
    assert times == sorted(times)
    assert 0 < answers[0].first_token_s < times[-1] <= passed
    assert times[0] < times[-1]


def test_what_cannot_be_answered_is_refused_alone(engine: ServingEngine) -> None:
    """The others of the batch are answered as without it, in their places."""
    long = Prompt(text="word " * tiny_model.CONTEXT_TOKENS)
    first, refused, last = engine.generate([PROMPTS[0], long, PROMPTS[1]])

    assert isinstance(refused, Refusal)
    assert "more than the context of 4096" in refused.reason
    assert isinstance(first, Completion)
    assert isinstance(last, Completion)
    alone = _answers(engine, PROMPTS[:2])
    assert [first.tokens, last.tokens] == [answer.tokens for answer in alone]
    assert engine.generate([long, long]) == [refused, refused]
    assert engine.generate([]) == []


def test_chats_go_through_the_template(engine: ServingEngine) -> None:
    """As its text, with one begin token; what the template cannot render is refused."""
    good, bad = (
        Prompt(messages=({"role": role, "content": "Hello"},)) for role in ("user", "robot")
    )
    chat, refused = engine.generate([good, bad])
    (text,) = _answers(engine, [Prompt(text="user: Hello\nassistant: ")])

    assert isinstance(chat, Completion)
    assert chat.tokens == text.tokens
    assert chat.prompt_tokens == text.prompt_tokens
    assert isinstance(refused, Refusal)
    assert "unknown role robot" in refused.reason


def test_the_fingerprint_is_of_what_decides_the_answers(
    engine: ServingEngine, parameters: Parameters, cache: Path
) -> None:
    """A folder that is named gives the same as the one that was made; other weights do not."""
    folder = str(tiny_model.ensure_model(parameters.seed, parameters.cache_dir))
    same = ServingEngine(declared(Parameters, model=folder), 0)
    equal_work = ServingEngine(declared(Parameters, model=folder, ignore_eos=True), 0)
    other = ServingEngine(declared(Parameters, cache_dir=str(cache), seed=1), 0)

    assert same.fingerprint == engine.fingerprint
    assert len({each.fingerprint for each in (engine, equal_work, other)}) == 3
    assert {len(answer.tokens) for answer in _answers(equal_work, PROMPTS)} == {16}
