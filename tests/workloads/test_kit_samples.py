"""Samples of divisible work through the kit: alone, and leased by files as a coordinator's are."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import orchestrate_kit as kit
from orchestrate_kit import _samples
from orchestrator.core.sharing.sample_protocol import (
    FirstToken,
    LeaseAck,
    Output,
    Ready,
    SampleFailed,
    Worked,
)
from orchestrator.parsing.replies.sample_records import (
    merged_line,
    parse_sample_record,
    sample_line,
)

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As if started by hand in an empty folder."""
    for name in ("RANK", "WORLD_SIZE", "ORCHESTRATE_OUTPUT_DIR", "ORCHESTRATE_SAMPLES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(_samples, "_at_work", [])
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where rank 5 is fed."""
    folder = tmp_path / "in" / "rank-5"
    folder.mkdir(parents=True)
    monkeypatch.setenv("ORCHESTRATE_SAMPLES", "leased")
    monkeypatch.setenv("ORCHESTRATE_EXCHANGE_DIR", str(tmp_path))
    monkeypatch.setenv("RANK", "5")
    return folder


def feed(inbox: Path, number: int, **word: Any) -> None:
    (inbox / f"{number:08d}.json").write_text(json.dumps(word))


def lease(inbox: Path, number: int, *groups: int) -> None:
    entries = [{"group": g, "first": 2 * g, "count": 2, "data": ["a", {"b": g}]} for g in groups]
    feed(inbox, number, type="lease", lease=f"2.{number}", groups=entries)


def told(tmp_path: Path) -> list[object]:
    """What the worker said, as the coordinator reads it."""
    lines = (tmp_path / "exchange-5.jsonl").read_bytes().splitlines()
    return [parse_sample_record(line, 100, 50) for line in lines]


@pytest.mark.parametrize("rank,mine", [("0", [0, 1, 4]), ("1", [2, 3])])
def test_alone_every_so_many_th_group(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rank: str, mine: list[int]
) -> None:
    """Under plain torchrun the groups are dealt out by rank, each output in the file of its own."""
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for group in kit.groups(5, 2):
        for sample in group:
            kit.complete(sample, {"z": 1, "a": sample.index}, 0.5)

    lines = (tmp_path / "output" / f"samples-{rank}.jsonl").read_bytes().splitlines()
    assert lines == [sample_line(index, {"a": index, "z": 1}) for index in mine]


@pytest.mark.parametrize("count,expected", [(0, ["x", 2, None]), (2, ["x", 2])])
def test_alone_the_samples_of_a_file(tmp_path: Path, count: int, expected: list[object]) -> None:
    """As many lines as asked for, or all."""
    (tmp_path / "data.jsonl").write_text('"x"\n2\nnull\n')
    found = [sample.data for group in kit.groups(count, 2, "data.jsonl") for sample in group]

    assert found == expected


def test_a_mark_at_the_beginning_of_a_file_is_no_part_of_it(tmp_path: Path) -> None:
    """As the coordinator reads it; the mark anywhere else, and other encodings, are refused."""
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"p": 1}\r\n{"p": 2}\n')
    assert [s.data for group in kit.groups(0, 1, str(path)) for s in group] == [{"p": 1}, {"p": 2}]
    for content in (b"1\n\xef\xbb\xbf2\n", "1\n2\n".encode("utf-16")):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="not JSON"):
            list(kit.groups(0, 1, str(path)))


def test_a_load_generator_asks_for_samples_in_its_own_order(inbox: Path, tmp_path: Path) -> None:
    """What is asked for has a number of its own beside the sample's; first tokens are told."""
    entry = {"group": 3, "first": 6, "count": 2, "of": [9, 0], "data": ["i", "a"]}
    feed(inbox, 1, type="lease", lease="2.1", groups=[entry])
    seen = []
    for group in kit.groups(10, 2, per_s=12.5):
        feed(inbox, 2, type="end")
        for sample in group:
            seen.append((sample.index, sample.of, sample.data))
            kit.first_token(sample)
            kit.complete(sample, {}, 0.5)
            with pytest.raises(ValueError, match="not handed out here, or is answered"):
                kit.first_token(sample)

    assert seen == [(6, 9, "i"), (7, 0, "a")]
    records = told(tmp_path)
    assert [r.sample for r in records if isinstance(r, FirstToken)] == [6, 7]
    assert [r.per_s for r in records if isinstance(r, Ready)] == [12.5]


def test_alone_nobody_measures_first_tokens(tmp_path: Path) -> None:
    """The call does no harm there, and a sample is the one of its number."""
    for group in kit.groups(2, 1):
        for sample in group:
            kit.first_token(sample)
            assert sample.of == sample.index
            kit.complete(sample, {}, 0.5)


def test_scalars_of_numpy_and_torch_are_numbers(inbox: Path, tmp_path: Path) -> None:
    """In outputs, times and amounts, as people get them from their models."""
    lease(inbox, 1, 0)
    for group in kit.groups(0, 2, "x"):
        feed(inbox, 2, type="end")
        for sample in group:
            output = {"loss": np.float32(0.5), "ids": [np.int64(7), torch.tensor(3)], "ok": True}
            kit.complete(sample, output, np.float64(0.25), tokens=torch.tensor(12))
            with pytest.raises(ValueError, match="not plain JSON"):
                kit.complete(sample, {"x": object()}, 0.1)
            with pytest.raises(ValueError, match="not one number"):
                kit.complete(sample, {"x": np.zeros(3)}, 0.1)

    first = next(record for record in told(tmp_path) if isinstance(record, Output))
    assert (first.seconds, dict(first.amounts)) == (0.25, {"tokens": 12})
    line = sample_line(0, {"loss": 0.5, "ids": [7, 3], "ok": True})
    assert first.digest == hashlib.sha256(line).digest()


def test_alone_a_bad_line_is_named(tmp_path: Path) -> None:
    """File and line."""
    (tmp_path / "data.jsonl").write_text("1\n{\n")
    with pytest.raises(ValueError, match=r"data\.jsonl:2"):
        list(kit.groups(0, 1, "data.jsonl"))


def test_a_worker_takes_its_leases_in_order(inbox: Path, tmp_path: Path) -> None:
    """It says what it is, acknowledges each feed, answers, and ends when it is told to."""
    lease(inbox, 1, 3, 7)
    feed(inbox, 2, type="end", lease="2.2")
    lease(inbox, 3, 9)
    seen = []
    for group in kit.groups(0, 2, "a file that is not here"):
        seen.append([(sample.index, sample.data) for sample in group])
        kit.complete(group[1], {"n": 1}, 0.25, tokens=4)
        kit.fail(group[0], "no")

    # The end came while the second group waited: nobody needs it any more.
    assert seen == []
    ready, first, second = told(tmp_path)
    assert isinstance(ready, Ready)
    assert (first, second) == (LeaseAck(1, "2.1", (3, 7)), LeaseAck(2, "2.2", ()))


def test_answers_and_times_are_told(inbox: Path, tmp_path: Path) -> None:
    """Outputs with digests, failures, and for how long the worker was busy."""
    lease(inbox, 1, 3, 7)
    groups = kit.groups(0, 2)
    for number in range(2):
        group = next(groups)
        kit.complete(group[1], {"n": number}, 0.25, tokens=4)
        kit.fail(group[0], "no")
        if number:
            feed(inbox, 2, type="end", lease="2.2")
    assert next(groups, None) is None

    *_, output, failure, first, later, _, second, _ = told(tmp_path)
    assert isinstance(output, Output)
    assert (output.sample, output.seconds, output.amounts) == (7, 0.25, {"tokens": 4.0})
    assert failure == SampleFailed(6, "no")
    assert isinstance(later, Output)
    assert isinstance(first, Worked)
    assert isinstance(second, Worked)
    assert (first.groups, second.groups) == ((3,), (7,))
    assert 0 < first.busy_s < second.busy_s
    assert not list(inbox.iterdir())


def test_what_others_have_done_is_not_begun(inbox: Path) -> None:
    """A recall takes a group away that waits, and leaves the one that is being worked on."""
    lease(inbox, 1, 3, 7, 9)
    groups = kit.groups(0, 2)
    seen = [next(groups)[0].index]
    feed(inbox, 2, type="recall", groups=[3, 7], lease="2.2")
    seen.append(next(groups)[0].index)
    feed(inbox, 3, type="end", lease="2.3")

    assert seen == [6, 18]
    assert next(groups, None) is None
    assert list(kit.groups(0, 2)) == []  # nothing more comes after the end


def test_a_sample_is_answered_once(inbox: Path) -> None:
    """The script learns of its mistake at once."""
    lease(inbox, 1, 3)
    group = next(iter(kit.groups(0, 2)))
    kit.complete(group[0], {}, 0.0)
    for again in (lambda: kit.complete(group[0], {}, 0.0), lambda: kit.fail(group[0], "no")):
        with pytest.raises(ValueError, match="sample 6 was not handed out here, or is answered"):
            again()


@pytest.mark.parametrize(
    "output,seconds,amounts",
    [
        ({"index": 1}, 1.0, {}),
        ([1], 1.0, {}),
        ({"a": float("nan")}, 1.0, {}),
        ({"a": "x" * 1_100_000}, 1.0, {}),
        ({}, -1.0, {}),
        ({}, float("inf"), {}),
        ({}, 1.0, {"tokens": "3"}),
        ({}, 1.0, {"tokens": float("nan")}),
    ],
)
def test_a_bad_output_is_refused_where_it_is_made(
    output: Any, seconds: float, amounts: dict[str, Any]
) -> None:
    """The coordinator would refuse it; the sample stays open."""
    sample = next(iter(kit.groups(1, 1)))[0]
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own words
        kit.complete(sample, output, seconds, **amounts)
    kit.complete(sample, {}, 1.0)


@given(st.dictionaries(st.text().filter(lambda key: key != "index"), PLAIN, max_size=4))
def test_both_sides_digest_the_same(output: dict[str, Any]) -> None:
    """Whatever the output, what a worker tells is what the coordinator merges, byte for byte."""
    line = _samples._sample_line(3, output)
    record = {"type": "output", "sample": 3, "output": json.loads(line)}
    del record["output"]["index"]

    assert merged_line(json.dumps(record).encode()) == line


def test_keys_that_are_no_texts_sort_as_texts() -> None:
    """As JSON has no others, they become texts before they are sorted."""
    assert _samples._sample_line(0, {2: "b", 10: "a"}) == b'{"10": "a", "2": "b", "index": 0}'
