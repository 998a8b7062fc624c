"""The micro-batch: as large as fits, the same on all ranks, smaller after running out of memory."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import orchestrate_kit as kit
from finetune.base.settings import Settings
from finetune.base.world import World
from finetune.data.packing import Batch, Row, text_example
from finetune.model.lora import Trainable
from finetune.training.batch_size_search import (
    BatchSize,
    Footprint,
    RowTooLong,
    choose_batch_size,
    find_batch_size,
)
from finetune.training.trainer import Trainer, shares
from tests.workloads.conftest import WORKLOADS, node_folder, start_ranks, succeed
from tests.workloads.declared import declared
from tests.workloads.test_finetune_fused import small

PROGRAM = Path(__file__).parent / "programs" / "sizes.py"
CPU = torch.device("cpu")
ALONE = World(rank=0, local_rank=0, size=1, device=CPU)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of the libraries, about one another
]


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
    size = choose_batch_size(Footprint(fixed, per_row), room, rows, efficient).rows
    assert 1 <= size <= min(rows, efficient)
    assert size == 1 or fixed + size * per_row <= 0.92 * room * (1 + 1e-9)
    count = math.ceil(rows / size)
    assert size == math.ceil(rows / count)
    # No larger one that is allowed would need fewer passes.
    most = min(rows, efficient, max(1, int((0.92 * room - fixed) // per_row)))
    assert count == math.ceil(rows / most)


def test_the_reason_is_what_binds() -> None:
    tight = Footprint(fixed=0.0, per_row=1e9)
    assert choose_batch_size(tight, 4e9, 8, 8).reason == "1.00 GB a row of 4.0 GB that are free"
    assert choose_batch_size(tight, 1e12, 4, 8).reason == "all that this rank has in a step"
    assert choose_batch_size(None, 0.0, 100, 8) == BatchSize(8, "more than 8 are not faster")


def trainer(world: World = ALONE, **changes: Any) -> Trainer:
    options = {"steps": 2, "global_batch": 6, "sequence_length": 12, "engine": "fused"} | changes
    random.seed(2)
    torch.manual_seed(2)
    tokenizer = type("Padding", (), {"pad_token_id": 0})
    settings = declared(Settings, **options)
    trainable = Trainable(model=small(), tokenizer=tokenizer, world=world, settings=settings)
    words = [[random.randrange(90) for _ in range(12)] for _ in range(12)]
    rows: list[Row] = [(text_example(line[:3], line[3:]),) for line in words]
    return Trainer(trainable, rows)


def test_auto_takes_all_rows_of_a_small_step(capsys: pytest.CaptureFixture[str]) -> None:
    assert trainer(micro_batch="auto").micro_batch == 6
    assert "micro-batch: 6 rows (all that this rank has in a step)" in capsys.readouterr().out


def test_ranks_agree_on_the_smallest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(World, "gather", lambda _, value: [value, BatchSize(2, "elsewhere"), value])
    assert find_batch_size(trainer(), None) == BatchSize(2, "elsewhere")


class Counted:
    """Memory of an engine whose rows take 100 bytes each."""

    def __init__(self, engine: Limited) -> None:
        self.engine = engine

    def held(self) -> float:
        return 5.0

    def peak_of(self, work: Callable[[], None]) -> float:
        work()
        return 5.0 + 3.0 + 100.0 * self.engine.rows

    def free(self) -> float:
        return 1000.0


class Limited:
    """An engine that has memory for so many rows."""

    in_step = False

    def __init__(self, fitting: int) -> None:
        self.fitting, self.rows, self.fitted = fitting, 0, 0

    def fit(self, rows: int) -> None:
        self.fitted = rows

    def accumulate(self, batch: Batch, scale: float) -> torch.Tensor:
        assert (self.fitted, scale) == (1, 1.0)
        self.rows = batch.input_ids.numel() // 12
        if self.rows > self.fitting:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee it")
        return torch.zeros(())


def limited(monkeypatch: pytest.MonkeyPatch, fitting: int, **changes: Any) -> tuple[Any, Counted]:
    """A trainer whose device has room for so many rows."""
    poor, engine = trainer(**changes), Limited(fitting)
    monkeypatch.setattr(poor, "engine", engine)
    monkeypatch.setattr(poor, "buffer", torch.ones(11))
    return poor, Counted(engine)


def test_the_peaks_of_one_and_two_rows_tell_how_many_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 1,000 bytes 88 are kept for two moments; 92 % of the rest, less 3 that are always taken,
    hold 8 rows. So 20 rows are 3 micro-batches of 7.
    """
    rich, memory = limited(monkeypatch, 2, global_batch=20)
    found = find_batch_size(rich, memory)
    assert (found.rows, found.reason) == (7, "0.00 GB a row of 0.0 GB that are free")
    assert not rich.buffer.any()


def test_where_two_rows_do_not_fit_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    poor, memory = limited(monkeypatch, 1)
    assert find_batch_size(poor, memory) == BatchSize(1, "two do not fit into memory")
    assert not poor.buffer.any(), "what the probe added is no gradient"


@pytest.mark.parametrize(
    "changes, remedy",
    [
        ({}, "pass --recompute layer"),
        ({"recompute": "layer"}, "lower --sequence-length or --lora-rank ("),
        ({"engine": "plain"}, "add --gradient-checkpointing"),
    ],
)
def test_where_no_row_fits_the_error_says_what_helps(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], remedy: str
) -> None:
    poor, memory = limited(monkeypatch, 0, **changes)
    with pytest.raises(RowTooLong) as raised:
        find_batch_size(poor, memory)
    said = str(raised.value)
    assert said.startswith("a single row of 12 tokens does not fit into the memory of rank 0: ")
    assert remedy in said
    assert said.endswith("(CUDA out of memory. Tried to allocate 2 GiB. See it)")


def test_a_rank_without_memory_tells_the_others(tmp_path: Path) -> None:
    """They wait for each other's sizes: none of them may hang, and all of them say the same."""
    (run,) = start_ranks([node_folder(tmp_path / "run")], 2, PROGRAM, str(WORKLOADS))
    lines = sorted(succeed(run).splitlines())
    why = "lower --sequence-length or --lora-rank, or pass --recompute layer (full)"
    told = f"a single row of 12 tokens does not fit into the memory of rank 1: {why}"
    assert lines == [
        f"rank {rank}: {answer}"
        for rank in range(2)
        for answer in ("1 rows: two do not fit into memory", told)
    ]


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
    assert "rank 0: out of memory with a micro-batch of 6; continuing with 3" in said
    assert "with a micro-batch of 3; continuing with 2" in said


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
    assert kit.parse(Settings, ["--micro-batch=auto"]).micro_batch == "auto"
    for wrong in (
        ["--micro-batch=0"],
        ["--micro-batch=some"],
        ["--micro-batch=auto", "--global-batch=0"],
    ):
        with pytest.raises(SystemExit):
            kit.parse(Settings, wrong)
        assert "auto" in capsys.readouterr().err


def test_ranks_without_work_are_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    many = World(rank=0, local_rank=0, size=1, device=CPU, run_size=8)
    trainer(many)
    assert "6 rows in a step leave 2 of 8 ranks without work; --global-batch 8" in (
        capsys.readouterr().out
    )
