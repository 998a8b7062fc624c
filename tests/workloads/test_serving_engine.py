"""The built-in engine on the small generated model: whose tokens, in which company."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from orchestrate_models import memory_fit
from orchestrate_models.shape_folder import ensure_shape_folder
from orchestrate_models.shapes import DENSE
from orchestrate_serving.builtin import server, tiny_model
from orchestrate_serving.builtin.decoder import Cache, decode
from orchestrate_serving.builtin.engine import BatchingEngine, Update
from orchestrate_serving.builtin.generate_engine import GenerateEngine, make_engine
from orchestrate_serving.builtin.model import HubModel, Model, load_any_model, load_model
from orchestrate_serving.builtin.options import TORCH, EngineOptions, Tile
from orchestrate_serving.builtin.slots import LENGTH, STOP, Request, TooLong
from orchestrate_serving.builtin.weights import UnsupportedModel, random_weights, shape_of
from orchestrate_serving.words import generate_text, made_up_word
from tests.time_limits import scaled

ANSWER = 24
CONTEXT = 192
OPTIONS = EngineOptions(slots=3, context=CONTEXT, kernels=TORCH)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of the libraries, about one another
]


@pytest.fixture(scope="module")
def folder(cache: Path) -> str:
    return str(tiny_model.ensure_model(0, str(cache)))


@pytest.fixture(scope="module")
def model(folder: str) -> Model:
    return load_model(folder, dtype="fp32", device="cpu")


@pytest.fixture(scope="module")
def prompts(model: Model) -> list[tuple[int, ...]]:
    """More than there are slots, of several lengths."""
    texts = (generate_text(index, seed=1, words=40) for index in range(7))
    return [tuple(model.tokenizer(text)["input_ids"]) for text in texts]


@pytest.fixture(scope="module")
def expected(folder: str, prompts: list[tuple[int, ...]]) -> list[list[int]]:
    """Transformers' own answers, one prompt at a time."""
    from transformers import AutoModelForCausalLM

    theirs: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    answers = (
        theirs.generate(torch.tensor([prompt]), max_new_tokens=ANSWER, do_sample=False)[0]
        for prompt in prompts
    )
    return [answer[len(prompt) :].tolist() for answer, prompt in zip(answers, prompts, strict=True)]


class Running:
    """An engine with what came of each request."""

    def __init__(self, model: Model | HubModel, options: EngineOptions = OPTIONS) -> None:
        self.tokens: dict[int, list[int]] = {}
        self.finish: dict[int, str] = {}
        self.errors: dict[int, str] = {}
        self._news = threading.Condition()
        self.engine: Any = make_engine(model, options, self._take)

    def submit(self, number: int, request: Request) -> None:
        self.tokens[number] = []
        self.engine.submit(number, request)

    def wait(self, *numbers: int, tokens: int = 0) -> None:
        """Until each of these has ended, or has as many tokens."""

        def come() -> bool:
            some = [tokens and len(self.tokens[number]) >= tokens for number in numbers]
            over = [number in self.finish or number in self.errors for number in numbers]
            return all(map(max, over, some))

        with self._news:
            assert self._news.wait_for(come, scaled(30)), (self.tokens, self.finish)

    def answer(self, requests: list[Request]) -> list[list[int]]:
        numbers = range(len(self.tokens), len(self.tokens) + len(requests))
        for number, request in zip(numbers, requests, strict=True):
            self.submit(number, request)
        self.wait(*numbers)
        return [self.tokens[number] for number in numbers]

    def _take(self, updates: list[Update]) -> None:
        with self._news:
            for update in updates:
                self.tokens[update.number].extend(update.tokens)
                if update.finish:
                    self.finish[update.number] = update.finish
                if update.error:
                    self.errors[update.number] = update.error
            self._news.notify_all()


@contextmanager
def running(model: Model | HubModel, options: EngineOptions = OPTIONS) -> Iterator[Running]:
    one = Running(model, options)
    one.engine.start()
    try:
        yield one
    finally:
        one.engine.close()


def test_prompts_that_were_rehearsed_leave_nothing_behind(
    model: Model, prompts: list[tuple[int, ...]], expected: list[list[int]]
) -> None:
    """As an engine on a GPU does before its first request."""
    running = Running(model)
    running.engine._steps.rehearse()
    running.engine.start()
    try:
        requests = [Request(tokens=prompt, max_tokens=ANSWER) for prompt in prompts]
        assert running.answer(requests) == expected
    finally:
        running.engine.close()


def greedy(prompt: tuple[int, ...], **changes: Any) -> Request:
    return Request(**{"tokens": prompt, "max_tokens": ANSWER, **changes})


def test_greedy_answers_are_those_of_generate_alone_and_in_company(
    model: Model, prompts: list[tuple[int, ...]], expected: list[list[int]]
) -> None:
    """Seven requests through three slots: all but the first join while others run."""
    assert any(len(answer) < ANSWER for answer in expected), "no answer ends by itself"
    with running(model) as engine:
        assert engine.answer([greedy(prompt) for prompt in prompts]) == expected
        assert engine.answer([greedy(prompts[4])]) == [expected[4]]
    ended = [engine.finish[number] for number in range(len(prompts))]
    assert ended == [STOP if answer[-1] in model.ends else LENGTH for answer in expected]


def test_an_end_token_is_one_like_others_where_the_request_says_so(
    model: Model, prompts: list[tuple[int, ...]], expected: list[list[int]]
) -> None:
    """``ignore_eos`` passes over it; ``min_tokens`` does not choose it until then."""
    place = min(range(len(expected)), key=lambda index: len(expected[index]))
    with running(model) as engine:
        passed, put_off = engine.answer(
            [
                greedy(prompts[place], ignore_eos=True),
                greedy(prompts[place], min_tokens=ANSWER - 2),
            ]
        )
    assert len(passed) == ANSWER
    assert passed[: len(expected[place])] == expected[place]
    assert ANSWER - 2 <= len(put_off) <= ANSWER
    assert not set(put_off[: ANSWER - 3]) & set(model.ends)


def test_a_request_that_nobody_waits_for_frees_its_slot(
    model: Model, prompts: list[tuple[int, ...]], expected: list[list[int]]
) -> None:
    """One slot: the next request has it long before the first would have ended."""
    long = greedy(prompts[0], max_tokens=3900, ignore_eos=True)
    with running(model, EngineOptions(slots=1, context=4096, kernels=TORCH)) as engine:
        engine.submit(0, long)
        engine.submit(1, long)  # cancelled while it waits
        engine.wait(0, tokens=3)
        engine.engine.cancel(1)
        engine.engine.cancel(0)
        engine.submit(2, greedy(prompts[1]))
        engine.wait(2)
    assert engine.tokens[2] == expected[1]
    assert list(engine.finish) == [2]
    assert len(engine.tokens[0]) < 3900
    assert not engine.tokens[1]


def test_what_does_not_fit_a_slot_is_refused(model: Model, prompts: list[tuple[int, ...]]) -> None:
    engine = BatchingEngine(model, OPTIONS, lambda _: None)
    with pytest.raises(TooLong, match=f"are more than the context of {CONTEXT}"):
        engine.submit(0, greedy(prompts[0], max_tokens=CONTEXT))


def test_all_who_wait_hear_of_a_step_that_fails(
    model: Model, prompts: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Running(model)
    monkeypatch.setattr(one.engine._steps, "decode", lambda _: 1 / 0)
    for number, prompt in enumerate(prompts):
        one.submit(number, greedy(prompt))
    one.engine.start()
    one.wait(*range(len(prompts)))
    one.engine.close()
    assert set(one.errors.values()) == {"ZeroDivisionError: division by zero"}
    assert set(one.errors) | set(one.finish) == set(range(len(prompts)))
    assert one.engine.failure


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"model_type": "gpt2"}, "model type gpt2 is none of llama, mistral, qwen2"),
        ({"hidden_act": "gelu"}, "another activation than silu"),
        ({"attention_bias": True}, "a bias after attention"),
        ({"layer_types": ["sliding_attention"]}, "sliding window"),
        ({"rope_parameters": {"rope_type": "dynamic"}}, "rotary positions of kind dynamic"),
    ],
)
def test_a_model_that_would_be_computed_wrongly_is_refused(
    changes: dict[str, Any], words: str
) -> None:
    from transformers import LlamaConfig

    config = LlamaConfig()
    for name, value in changes.items():
        object.__setattr__(config, name, value)
    with pytest.raises(UnsupportedModel, match=words):
        shape_of(config)


@pytest.mark.parametrize("shape", ["tiny", "qwen2-7b"])
def test_a_shape_has_a_word_for_each_token(shape: str, tmp_path: Path) -> None:
    """Whatever random weights choose; and a made-up word is about two tokens, as is assumed."""
    folder = ensure_shape_folder(shape, str(tmp_path))
    assert ensure_shape_folder(shape, str(tmp_path)) == folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vocabulary = DENSE[shape].vocab_size
    special = {tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id}
    some = {*range(300), *range(vocabulary - 300, vocabulary)} - special
    assert all(tokenizer.decode([token]) for token in some)
    words = Random(1)
    text = " ".join(made_up_word(words) for _ in range(100))
    tokens = len(tokenizer(text)["input_ids"])
    assert shape == "tiny" or 200 <= tokens <= 204


def test_a_shape_is_served_with_random_weights(tmp_path: Path) -> None:
    model = load_model("", dtype="fp32", device="cpu", shape="tiny", cache_dir=str(tmp_path))
    again = load_model("", dtype="fp32", device="cpu", shape="tiny", cache_dir=str(tmp_path))

    assert model.name == "tiny"
    assert model.vocabulary == len(model.tokenizer) == DENSE["tiny"].vocab_size
    assert torch.equal(model.weights.head, again.weights.head)
    assert model.ends == (model.tokenizer.eos_token_id,)


def test_weights_are_drawn_for_families_that_it_knows_alone(tmp_path: Path) -> None:
    """Before anything large is read: there are no weights here."""
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    words = ["--model", str(tmp_path), "--random-weights"]
    with pytest.raises(server.LoadFailed) as caught:
        server._load_model(server._parser().parse_args(words))
    said = str(caught.value)
    assert said.startswith(f"{tmp_path}: model type gpt2 is none of llama, mistral, qwen2, so ")
    assert said.endswith("set engine=vllm, sglang or transformers")


def test_weights_without_room_are_refused_before_they_are_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory_fit, "_host_bytes", lambda: 2**30)

    with pytest.raises(ValueError, match=r"does not fit: weights 28\.4 = .* and cpu has 1 GiB"):
        load_model("", dtype="fp32", device="cpu", shape="qwen2-7b", cache_dir=str(tmp_path))


@pytest.fixture(scope="module")
def other_family(folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GPT-2 with the generated model's tokenizer, and 100 positions."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    made = tmp_path_factory.mktemp("gpt2")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=100,
        n_embd=32,
        n_layer=2,
        n_head=2,
        initializer_range=0.5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    GPT2LMHeadModel(config).save_pretrained(made)
    tokenizer.save_pretrained(made)
    return made


def test_other_families_are_answered_by_generate(
    other_family: Path, prompts: list[tuple[int, ...]]
) -> None:
    """In company as alone, each to its own length; what is cancelled is not answered."""
    model = load_any_model(str(other_family), dtype="fp32", device="cpu")
    assert isinstance(model, HubModel)
    assert model.why == "model type gpt2 is none of llama, mistral, qwen2"
    lengths = [3, 12, 7, 1]
    with running(model, EngineOptions(slots=3)) as engine:
        assert isinstance(engine.engine, GenerateEngine)
        with pytest.raises(TooLong, match="more than the context of 100"):
            engine.submit(9, greedy(prompts[0], max_tokens=100))
        for number, length in enumerate(lengths):
            request = greedy(prompts[number][:20], max_tokens=length, ignore_eos=True)
            engine.submit(number, request)
        engine.wait(*range(4))
        object.__setattr__(model, "ends", tuple(range(model.vocabulary)))
        engine.submit(4, greedy(prompts[0][:20], max_tokens=5))
        engine.submit(5, greedy(prompts[0][:20], max_tokens=5, ignore_eos=True))
        engine.wait(4, 5)
    assert [len(engine.tokens[4]), engine.finish[4]] == [1, STOP]
    assert [len(engine.tokens[5]), engine.finish[5]] == [5, LENGTH]
    for number, length in enumerate(lengths):
        alone = model.network.generate(
            torch.tensor([prompts[number][:20]]),
            max_new_tokens=length,
            do_sample=False,
            pad_token_id=0,
        )
        assert engine.tokens[number] == alone[0, 20:].tolist()
        assert engine.finish[number] == LENGTH


def test_prompts_fill_positions_that_are_no_multiple_of_64(tmp_path: Path, folder: str) -> None:
    """100 positions: a prompt of 97 tokens is padded to no more than that."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(folder)
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=100,
    )
    network = LlamaForCausalLM(config).eval()
    network.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    prompt = tuple(number % len(tokenizer) for number in range(5, 102))
    wanted = network.generate(
        torch.tensor([prompt]), min_new_tokens=3, max_new_tokens=3, do_sample=False
    )[0, 97:].tolist()
    small = load_model(str(tmp_path), dtype="fp32", device="cpu")
    with running(small, EngineOptions(slots=2, context=512, kernels=TORCH)) as engine:
        assert engine.engine.context == 100
        engine.submit(0, Request(tokens=prompt, max_tokens=3, min_tokens=3))
        engine.wait(0)
    assert engine.tokens[0] == wanted


def plain_range(*bounds: Any) -> range:
    """``range`` of what Triton 3.6's interpreter has read from memory: an array with one element,
    which NumPy from 2.4 on does not take for a number.
    """
    return range(*(int(b.handle.data.item()) if hasattr(b, "handle") else b for b in bounds))


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The step in kernels; Triton's interpreter runs them where there is no GPU."""
    pytest.importorskip("triton", reason="hardware: no build of Triton for this machine")
    from orchestrate_serving.builtin import fused_decode, kernels

    if not torch.cuda.is_available():
        monkeypatch.setattr(kernels, "range", plain_range, raising=False)
    return fused_decode


@pytest.mark.parametrize("rows", [1, 5])
@torch.inference_mode()
def test_the_kernels_of_a_step_agree_with_torch(fused: ModuleType, rows: int) -> None:
    """One row has a product of its own."""
    from transformers import Qwen2Config

    torch.manual_seed(3)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    config = Qwen2Config(
        vocab_size=96,
        hidden_size=64,
        intermediate_size=80,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
    )
    weights = random_weights(config, torch.float32, device, 0)
    caches = [Cache(weights, rows, 192) for _ in range(2)]
    for name in ("keys", "values"):
        getattr(caches[0], name).normal_()
        getattr(caches[1], name).copy_(getattr(caches[0], name))
    positions = torch.randint(0, 150, (rows,), device=device)
    tokens = torch.randint(0, config.vocab_size, (rows,), device=device)
    wanted = decode(weights, caches[0], tokens, positions, 192)
    got = fused.decode(weights, caches[1], tokens, positions, Tile(32, 64, 4, 1))
    assert float((got - wanted).abs().max() / wanted.std()) < 1e-3
    for name in ("keys", "values"):
        torch.testing.assert_close(getattr(caches[1], name), getattr(caches[0], name))
