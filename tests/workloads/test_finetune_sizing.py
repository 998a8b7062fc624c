"""The micro-batch: as large as fits, the same on all ranks, smaller after running out of memory."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lora import Trainable
from packing import Row, text_example
from settings import AUTO, Settings, parse_settings
from sizing import Footprint, Size, choose_size, find_size
from tests.workloads.test_finetune_fused import small
from training import Trainer, shares
from world import World

CPU = torch.device("cpu")
ALONE = World(rank=0, local_rank=0, size=1, device=CPU)
pytestmark = pytest.mark.filterwarnings("default")  # of the libraries, about one another


@given(
    st.floats(0, 1e9),
    st.floats(1, 1e9),
    st.floats(0, 1e11),
    st.integers(1, 500),
    st.integers(1, 64),
)
def test_a_size_fits_and_leaves_no_small_rest(
    fixed: float, per_row: float, room: float, rows: int, efficient: int
) -> None:
    size = choose_size(Footprint(fixed, per_row), room, rows, efficient).rows
    assert 1 <= size <= min(rows, efficient)
    assert size == 1 or fixed + size * per_row <= 0.92 * room * (1 + 1e-9)
    count = math.ceil(rows / size)
    assert size == math.ceil(rows / count)
    # No larger one that is allowed would need fewer passes.
    most = min(rows, efficient, max(1, int((0.92 * room - fixed) // per_row)))
    assert count == math.ceil(rows / most)


def test_the_reason_is_what_binds() -> None:
    tight = Footprint(fixed=0.0, per_row=1e9)
    assert choose_size(tight, 4e9, 8, 8).reason == "1.00 GB a row of 4.0 GB that are free"
    assert choose_size(tight, 1e12, 4, 8).reason == "all that this rank has in a step"
    assert choose_size(None, 0.0, 100, 8) == Size(8, "more than 8 are not faster")


def trainer(world: World = ALONE, **changes: Any) -> Trainer:
    options = {"steps": 2, "global_batch": 6, "sequence_length": 12, "engine": "fused"} | changes
    random.seed(2)
    torch.manual_seed(2)
    tokenizer = type("Padding", (), {"pad_token_id": 0})
    settings = Settings(**options)
    trainable = Trainable(model=small(), tokenizer=tokenizer, world=world, settings=settings)
    words = [[random.randrange(90) for _ in range(12)] for _ in range(12)]
    rows: list[Row] = [(text_example(line[:3], line[3:]),) for line in words]
    return Trainer(trainable, rows)


def test_auto_takes_all_rows_of_a_small_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert trainer(micro_batch=AUTO).micro_batch == 6
    assert "micro-batch: 6 rows (all that this rank has in a step)" in capsys.readouterr().out


def test_ranks_agree_on_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "gather", lambda _, value: [value, Size(2, "elsewhere"), value])
    assert find_size(trainer()) == Size(2, "elsewhere")


@pytest.mark.parametrize("engine", ["plain", "fused"])
def test_out_of_memory_halves_the_micro_batch_and_changes_no_loss(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], engine: str
) -> None:
    wanted = [trainer(engine=engine, micro_batch=6).step(step).loss for step in (1,)]
    poor = trainer(engine=engine, micro_batch=6, oom="retry")
    accumulate = poor.engine.accumulate

    def limited(batch: Any, *rest: Any) -> torch.Tensor:
        loss = accumulate(batch, *rest)
        if batch.input_ids.numel() > 2 * 12:
            raise torch.OutOfMemoryError
        return loss

    monkeypatch.setattr(poor.engine, "accumulate", limited)
    assert [poor.step(step).loss for step in (1,)] == pytest.approx(wanted, rel=1e-5)
    assert poor.micro_batch == 2
    said = capsys.readouterr().out
    assert "rank 0: out of memory with a micro-batch of 6; goes on with 3" in said
    assert "with a micro-batch of 3; goes on with 2" in said


@pytest.mark.parametrize("changes", [{"oom": "fail"}, {"micro_batch": 1}])
def test_out_of_memory_ends_what_cannot_shrink(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    poor = trainer(**({"micro_batch": 6, "oom": "retry"} | changes))

    def refuse(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(poor.engine, "accumulate", refuse)
    with pytest.raises(torch.OutOfMemoryError):
        poor.step(1)


def test_what_was_sent_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other ranks may have added it to theirs."""
    poor = trainer(micro_batch=6, oom="retry")

    class Begun:
        begun = True

    def refuse(*_: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(poor.engine, "overlap", lambda _: Begun())
    monkeypatch.setattr(poor.engine, "accumulate", refuse)
    with pytest.raises(torch.OutOfMemoryError):
        poor.step(1)


@given(st.integers(0, 40), st.integers(1, 5), st.integers(1, 7))
def test_ranks_have_each_row_once(count: int, ranks: int, size: int) -> None:
    rows: list[Row] = [(text_example([number], []),) for number in range(count)]
    found = []
    for rank in range(ranks):
        world = World(rank=rank, local_rank=0, size=ranks, device=CPU)
        parts = shares(rows, world, size)
        assert all(1 <= len(part) <= size for part in parts)
        found += [row[0].tokens[0] for part in parts for row in part]
    assert sorted(found) == list(range(count))


def test_auto_is_a_word_in_place_of_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse_settings(["--micro-batch=auto"]).micro_batch == AUTO
    for wrong in (
        ["--micro-batch=0"],
        ["--micro-batch=some"],
        ["--micro-batch=auto", "--global-batch=0"],
    ):
        with pytest.raises(SystemExit):
            parse_settings(wrong)
        assert "auto" in capsys.readouterr().err


def test_ranks_without_work_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    many = World(rank=0, local_rank=0, size=1, device=CPU, run_size=8)
    trainer(many)
    assert "6 rows in a step leave 2 of 8 ranks without work; --global-batch 8" in (
        capsys.readouterr().out
    )
