"""The model side of the finetune workload: base, tokenizer, templates, packed attention, scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM

from finetune.base.settings import Settings
from finetune.base.world import World
from finetune.data import packing
from finetune.data.conversations import encode, load_conversations
from finetune.data.function_calls import parse_calls
from finetune.model import lora, tiny_base
from finetune.model.lora import Trainable
from finetune.model.training_engines import summed_loss
from finetune.training.evaluation import answer_prompts, exact_match, mean_loss
from finetune.training.trainer import Trainer, collate_for, learning_rate_at
from tests.workloads.declared import declared

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of the libraries, about one another
]


@pytest.fixture(scope="module")
def settings() -> Settings:
    """The small base, and few conversations."""
    return declared(Settings, train_conversations=40, eval_conversations=12)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As ranks run on a node without GPUs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def trainable(settings: Settings) -> Trainable:
    """A fresh adapter whose second matrices are not zero, so that it matters."""
    trainable = lora.prepare(settings, ALONE)
    with torch.no_grad():
        for index, parameter in enumerate(trainable.parameters):
            torch.manual_seed(index)
            parameter.normal_(std=0.05)
    return trainable


def _examples(trainable: Trainable) -> list[Any]:
    conversations, _ = load_conversations(trainable.settings)
    return [encode(conversation, trainable.tokenizer) for conversation in conversations]


def test_the_tokenizer_loses_nothing(trainable: Trainable) -> None:
    """Any text comes back, also what the vocabulary was not made for."""
    text = 'Zürich, 12.5 °C\n\t{"a": ["ß", 1234]} <tool_call>日本</tool_call>'
    ids = trainable.tokenizer(text, add_special_tokens=False)["input_ids"]

    assert trainable.tokenizer.decode(ids) == text


def test_a_word_is_the_same_token_in_a_sentence_and_in_json(trainable: Trainable) -> None:
    """What a request mentions can be copied into a call."""
    sentence, call = (
        trainable.tokenizer.tokenize(text) for text in ("in paris for 12 days", '{"city": "paris"}')
    )

    assert "paris" in sentence
    assert "paris" in call


def test_only_assistant_turns_are_learnt(trainable: Trainable) -> None:
    """The targets spell the answer and its end, and nothing of the prompt."""
    example = _examples(trainable)[0]
    targets = [t for t, wanted in zip(example.tokens, example.is_target, strict=True) if wanted]

    assert trainable.tokenizer.decode(targets) == example.answer
    assert example.answer.startswith("<tool_call>")
    assert example.answer.endswith("</tool_call><|im_end|>")


def test_every_assistant_turn_of_a_conversation_is_learnt(trainable: Trainable) -> None:
    """Two turns with a tool's answer between them: both are targets, the answer is not."""
    tokenizer = trainable.tokenizer
    tokenizer.chat_template = lora.TOOL_TEMPLATE_PATH.read_text()
    conversation, *_ = load_conversations(trainable.settings)[0]
    messages = [
        *conversation["messages"],
        {"role": "tool", "content": "rain"},
        {"role": "assistant", "content": "it will rain"},
    ]
    example = encode({**conversation, "messages": messages}, tokenizer)
    pairs = zip(example.tokens, example.is_target, strict=True)
    text = tokenizer.decode([token for token, wanted in pairs if wanted])

    assert text.count("<|im_end|>") == 2
    assert text.endswith("</tool_call><|im_end|>it will rain<|im_end|>")
    assert "<tool_response>" in example.prompt


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_conversations_do_not_see_each_other(trainable: Trainable, attention: str) -> None:
    """The loss of a packed row is the sum of the losses of its conversations alone."""
    trainable.model.base_model.model.set_attn_implementation(attention)
    trainable.model.eval()
    rows = list(packing.make_rows(_examples(trainable)[:12], 256, pack=True))
    assert max(map(len, rows)) > 1

    with torch.no_grad():
        packed = summed_loss(trainable, packing.collate(rows, pad=0))
        alone = [
            summed_loss(trainable, packing.collate([(example,)], pad=0))
            for row in rows
            for example in row
        ]

    torch.testing.assert_close(packed, torch.stack(alone).sum(), rtol=1e-5, atol=1e-3)


def test_gradient_checkpointing_changes_memory_not_gradients(
    trainable: Trainable, settings: Settings
) -> None:
    """Recomputed activations give the same gradients."""
    batch = collate_for(trainable, [(example,) for example in _examples(trainable)[:3]])

    def gradients() -> list[torch.Tensor]:
        trainable.model.zero_grad(set_to_none=True)
        summed_loss(trainable, batch).backward()
        return [parameter.grad.clone() for parameter in trainable.parameters]

    trainable.model.train()
    plain = gradients()
    base = trainable.model.base_model.model
    base.gradient_checkpointing_enable({"use_reentrant": False})

    torch.testing.assert_close(gradients(), plain, rtol=1e-5, atol=1e-5)


def test_a_saved_adapter_gives_the_same_logits(trainable: Trainable, tmp_path: Path) -> None:
    """Loaded with peft, onto the base, it is the model that was trained."""
    batch = collate_for(trainable, [(example,) for example in _examples(trainable)[:2]])
    lora.save_adapter(trainable, tmp_path)

    assert lora.reload_difference(trainable, tmp_path, batch) < 1e-5


def test_another_adapter_is_told_from_the_trained_one(trainable: Trainable, tmp_path: Path) -> None:
    """The check behind the failure exit can fail."""
    batch = collate_for(trainable, [(example,) for example in _examples(trainable)[:2]])
    lora.save_adapter(trainable, tmp_path)
    with torch.no_grad():
        trainable.parameters[0].add_(1.0)

    assert lora.reload_difference(trainable, tmp_path, batch) > lora.RELOAD_TOLERANCE["fp32"]


def test_answers_are_scored_against_the_expected_calls(trainable: Trainable) -> None:
    """An untrained model answers every prompt, in order, and is right about none."""
    examples = _examples(trainable)[:5]
    samples = answer_prompts(trainable, examples)

    assert [sample.prompt for sample in samples] == [example.prompt for example in examples]
    assert exact_match(samples) == 0
    trainer = Trainer(trainable, [])
    assert mean_loss(trainer, [(example,) for example in examples]) > 1


def test_a_template_that_ignores_tools_is_replaced(tmp_path: Path) -> None:
    """Qwen2's own template drops the tools; then the model could not know them."""
    for file in tiny_base.verified_folder().iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    plain = "{% for message in messages %}{{ message.content }}{% endfor %}"
    (tmp_path / "chat_template.jinja").write_text(plain)
    local = declared(Settings, model=str(tmp_path), train_conversations=4, eval_conversations=4)
    trainable = lora.prepare(local, ALONE)
    example = _examples(trainable)[0]
    prompt = example.prompt

    (call,) = parse_calls(example.answer) or []
    assert f'"name": "{call["name"]}", "description": ' in prompt
    assert prompt.endswith("<|im_start|>assistant\n")


def test_the_real_adapter_has_161_million_parameters() -> None:
    """Rank 64 on all projections of Qwen2-7B, counted on a model without storage."""
    with torch.device("meta"):
        config = Qwen2Config(
            vocab_size=152_064,
            hidden_size=3584,
            intermediate_size=18_944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
        )
        settings = declared(Settings, lora_rank=64, lora_alpha=128)
        model = get_peft_model(Qwen2ForCausalLM(config), lora.adapter_config(settings))

    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 161_480_704


def test_the_learning_rate_rises_then_falls_to_nearly_nothing() -> None:
    """Warm-up over 3 steps of 100; a cosine that passes 97 % of the peak at step 10."""
    settings = declared(Settings, steps=100, learning_rate=2e-5, warmup_ratio=0.03)
    rates = [learning_rate_at(step, settings) for step in range(1, 101)]

    assert rates[2] == pytest.approx(2e-5)
    assert sorted(rates[:3]) == rates[:3]
    assert sorted(rates[2:], reverse=True) == rates[2:]
    assert rates[9] == pytest.approx(1.97e-5, rel=0.01)
    assert 0 < rates[-1] < 1e-8
