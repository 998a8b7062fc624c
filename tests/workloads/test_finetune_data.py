"""The data of the finetune workload: tools, requests, calls, rows."""

from __future__ import annotations

import json
from array import array
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.base.settings import Settings
from finetune.data import packing
from finetune.data.conversations import Example, load_conversations
from finetune.data.function_calls import calls_match, parse_calls
from finetune.data.generated_conversations import generate_conversations
from finetune.data.tool_catalogue import load_catalogue
from tests.workloads.declared import declared

pytestmark = pytest.mark.slow

CATALOGUE = load_catalogue()


def _calls(*, held_out: bool) -> list[dict[str, Any]]:
    conversations = generate_conversations(CATALOGUE, 28 * 60, 0, held_out=held_out)
    return [
        {
            "request": conversation["messages"][0]["content"],
            "offered": [tool["function"]["name"] for tool in conversation["tools"]],
            **conversation["messages"][1]["tool_calls"][0]["function"],
        }
        for conversation in conversations
    ]


def test_there_are_many_tools_with_arguments_of_every_type() -> None:
    """At least 24 tools; strings, integers, numbers and booleans."""
    types = {kind.json_type for tool in CATALOGUE.tools for kind in tool.arguments.values()}

    assert len({tool.name for tool in CATALOGUE.tools}) >= 24
    assert types == {"string", "integer", "number", "boolean"}


def test_the_called_tool_is_among_those_offered() -> None:
    """A request can be answered from its prompt."""
    assert all(call["name"] in call["offered"] for call in _calls(held_out=False))


def test_held_out_wordings_never_occur_in_training() -> None:
    """No sentence frame is in both splits of a tool."""
    for tool in CATALOGUE.tools:
        assert not set(tool.wordings) & set(tool.held_out_wordings), tool.name


def test_held_out_values_never_occur_in_training() -> None:
    """No argument of a tool takes the same value in both splits, but for true and false."""

    def values(calls: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
        return {
            (call["name"], name, json.dumps(value))
            for call in calls
            for name, value in call["arguments"].items()
            if not isinstance(value, bool)
        }

    assert not values(_calls(held_out=False)) & values(_calls(held_out=True))


def test_conversations_are_a_function_of_the_seed() -> None:
    """The same seed gives the same data on every node; another seed gives other data."""
    first, again = (list(generate_conversations(CATALOGUE, 50, 1, held_out=False)) for _ in "ab")

    assert first == again
    assert first != list(generate_conversations(CATALOGUE, 50, 2, held_out=False))


def test_a_file_is_split_by_content_not_by_order(tmp_path: Path) -> None:
    """Reordering the lines of a data set leaves the same conversations held out. Nor does the mark
    matter that editors on Windows put at the beginning.
    """
    lines = [json.dumps(c) for c in generate_conversations(CATALOGUE, 40, 0, held_out=False)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    (tmp_path / "b.jsonl").write_text("\n".join(reversed(lines)), encoding="utf-8-sig")
    splits = [
        load_conversations(declared(Settings, dataset=str(tmp_path / name), eval_conversations=10))
        for name in ("a.jsonl", "b.jsonl")
    ]

    assert splits[0] == splits[1]
    assert [len(part) for part in splits[0]] == [30, 10]


@pytest.mark.parametrize(
    "line", ["not json", "[]", '{"messages": [{"role": "user"}]}', '{"messages": 3}']
)
def test_a_bad_line_of_a_file_is_named(tmp_path: Path, line: str) -> None:
    """Whoever made the file learns which line to look at."""
    good = json.dumps(next(generate_conversations(CATALOGUE, 1, 0, held_out=False)))
    (tmp_path / "data.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(ValueError, match=r"data\.jsonl line 2: "):
        load_conversations(declared(Settings, dataset=str(tmp_path / "data.jsonl")))


CALL = '<tool_call>{"name": "f", "arguments": {"a": 1, "b": "x"}}</tool_call>'


@pytest.mark.parametrize(
    "answer, matches",
    [
        (CALL, True),
        ('<tool_call>\n{"arguments": {"b": "x", "a": 1}, "name": "f"}\n</tool_call>', True),
        (f"Of course. {CALL}", True),
        (CALL.replace("1", "1.0"), False),
        (CALL.replace("1", "true"), False),
        (CALL.replace("1", '"1"'), False),
        (CALL.replace('"f"', '"g"'), False),
        (CALL.replace(', "b": "x"', ""), False),
        (CALL + CALL, False),
        (CALL.removesuffix("</tool_call>"), False),
        ('<tool_call>{"name": "f"}</tool_call>', False),
        ("<tool_call>[1]</tool_call>", False),
        ("", False),
    ],
)
def test_calls_match_exactly_or_not_at_all(answer: str, matches: bool) -> None:
    """Order and blanks are free; names, types, values and the number of calls are not."""
    assert calls_match(answer, CALL) is matches


def test_deeply_nested_text_is_not_a_call() -> None:
    """What a model writes cannot exhaust the parser."""
    assert parse_calls("<tool_call>" + "[" * 30_000 + "</tool_call>") is None


def _example(size: int, first: int) -> Example:
    tokens = array("i", range(first, first + size))
    return Example(tokens=tokens, is_target=bytes(i % 2 for i in range(size)), prompt="", answer="")


sizes = st.lists(st.integers(1, 40), min_size=1, max_size=120)


@given(sizes=sizes, length=st.integers(20, 60), pack=st.booleans())
def test_rows_hold_every_conversation_that_fits_once_and_whole(
    sizes: list[int], length: int, pack: bool
) -> None:
    """Nothing is lost, cut, repeated or too long."""
    examples = [_example(size, 100 * index) for index, size in enumerate(sizes)]
    rows = list(packing.make_rows(examples, length, pack=pack))

    placed = sorted(example.tokens[0] for row in rows for example in row)
    assert placed == [e.tokens[0] for e in examples if len(e.tokens) <= length]
    assert all(sum(len(example.tokens) for example in row) <= length for row in rows)


@given(sizes=sizes, wanted=st.integers(1, 60), seed=st.integers(0, 9))
def test_more_steps_only_append_to_the_plan(sizes: list[int], wanted: int, seed: int) -> None:
    """A shorter plan is the beginning of a longer one, so a position in it has a meaning."""
    examples = [_example(size, 100 * index) for index, size in enumerate(sizes)]
    longer, shorter = (
        packing.plan_rows(
            len(examples), examples.__getitem__, count, length=40, pack=True, seed=seed
        )
        for count in (wanted + 7, wanted)
    )

    assert longer[:wanted] == shorter


def test_a_plan_that_no_conversation_fits_into_is_refused() -> None:
    """It would go on for ever."""
    with pytest.raises(ValueError, match="no conversation fits into 5 tokens"):
        packing.plan_rows(1, lambda _: _example(9, 0), 3, length=5, pack=True, seed=0)


@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6), one_row=st.booleans())
def test_labels_stay_within_their_conversation(sizes: list[int], one_row: bool) -> None:
    """Each target token but a first one is predicted, from the token before it, exactly once."""
    examples = [_example(size, 100 * index) for index, size in enumerate(sizes)]
    rows = [(example,) for example in examples[::2]] + [tuple(examples[1::2])] * (len(sizes) > 1)
    batch = packing.collate(rows, pad=7, one_row=one_row)
    predicted = [
        (token, label)
        for tokens, labels in zip(batch.input_ids.tolist(), batch.labels.tolist(), strict=True)
        for token, label in zip(tokens, labels, strict=True)
        if label != packing.IGNORED
    ]

    expected = [
        (before, after)
        for example in examples
        for (before, after), target in zip(
            pairwise(example.tokens), example.is_target[1:], strict=True
        )
        if target
    ]
    assert sorted(predicted) == sorted(expected)
    assert len(expected) == packing.count_targets(rows)


def test_what_is_assumed_of_generated_conversations_is_what_they_are() -> None:
    """Mean length weighed by tokens, and the share of answers, by the tokenizer that is included:
    what `workload.yaml` tells predictions, within 5 %.
    """
    from transformers import AutoTokenizer

    from finetune.data.conversations import encode
    from orchestrator.core.model.workload import TextSource
    from tests.workloads.conftest import bundled_workload

    training = bundled_workload("finetune").training
    assert training is not None
    texts = training.texts
    assert isinstance(texts, TextSource)
    folder = Path(packing.__file__).parents[1] / "model" / "tiny"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    drawn = generate_conversations(load_catalogue(), 300, 0, held_out=False)
    rows = [(encode(conversation, tokenizer),) for conversation in drawn]
    figures = packing.text_figures(rows)
    assert figures["text_tokens"][0] == pytest.approx(texts.tokens, rel=0.05)
    assert figures["target_fraction"][0] == pytest.approx(texts.targets, rel=0.05)
    whole = packing.text_example(list(range(10)), list(range(30)))
    assert packing.text_figures([(whole,), (whole,)]) == {
        "text_tokens": (40.0, "tokens"),
        "target_fraction": (0.75, "fraction"),
    }
