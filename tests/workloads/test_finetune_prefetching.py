"""Micro-batches are made ahead by another thread, and come as if they were not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

import pytest
import torch

import finetune.training.trainer as steps
from finetune.data.packing import Batch, Row, collate, text_example
from finetune.data.prefetching import AHEAD, Part, Prefetcher
from finetune.model.lora import Trainable
from tests.workloads.test_finetune_batch_size import trainer

CPU = torch.device("cpu")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # of the libraries, about one another
]


def parts(*numbers: int) -> list[Part]:
    return [[(text_example([number], [number]),)] for number in numbers]


def number_of(batch: Batch) -> int:
    return int(batch.input_ids[0, 0])


@dataclass
class Maker:
    """Makes batches, and remembers of which parts."""

    made: list[int] = field(default_factory=list)
    threads: set[str] = field(default_factory=set)

    def __call__(self, part: Part) -> Batch:
        batch = collate(part, pad=0)
        self.made.append(number_of(batch))
        self.threads.add(threading.current_thread().name)
        return batch


@pytest.fixture
def maker() -> Maker:
    return Maker()


@pytest.fixture
def prefetcher(maker: Maker) -> Iterator[Prefetcher]:
    made = Prefetcher(maker, CPU)
    yield made
    made.close()


def settle(prefetcher: Prefetcher) -> None:
    """Until all that was begun is made."""
    idle: Future[None] = prefetcher._thread.submit(lambda: None)
    idle.result(30)


def test_batches_come_in_the_order_of_their_parts(maker: Maker, prefetcher: Prefetcher) -> None:
    """Of each call, and each is made once, by another thread."""
    calls = [parts(1, 2, 3, 4, 5), parts(6), parts(), parts(7, 8)]
    found = []
    for wanted, following in zip(calls, [*calls[1:], []], strict=True):
        found.append([number_of(batch) for batch in prefetcher.batches(wanted, following)])

    assert found == [[1, 2, 3, 4, 5], [6], [], [7, 8]]
    assert maker.made == [1, 2, 3, 4, 5, 6, 7, 8]
    assert maker.threads == {"batches_0"}


def test_no_more_are_made_than_will_soon_be_used(maker: Maker, prefetcher: Prefetcher) -> None:
    batches = prefetcher.batches(parts(0, 1, 2), parts(3, 4, 5, 6, 7))
    for used in range(3):
        assert number_of(next(batches)) == used
        settle(prefetcher)
        assert maker.made == list(range(used + 1 + AHEAD))


def test_what_is_made_ahead_and_not_wanted_is_forgotten(
    maker: Maker, prefetcher: Prefetcher
) -> None:
    """Such as micro-batches of a size that did not fit."""
    batches = prefetcher.batches(parts(1, 2, 3))
    next(batches)
    settle(prefetcher)
    found = [number_of(batch) for batch in prefetcher.batches(parts(1, 9))]

    assert found == [1, 9]
    assert maker.made == [1, 2, 3, 1, 9]


def test_what_making_raises_is_raised_to_whom_asks_for_that_batch() -> None:
    def make(part: Part) -> Batch:
        batch = collate(part, pad=0)
        if number_of(batch) == 2:
            raise ValueError("no such token")
        return batch

    prefetcher = Prefetcher(make, CPU)
    batches = prefetcher.batches(parts(1, 2, 3))
    assert number_of(next(batches)) == 1
    with pytest.raises(ValueError, match="no such token"):
        next(batches)
    prefetcher.close()


def test_the_thread_ends_when_it_is_closed(maker: Maker) -> None:
    before = set(threading.enumerate())
    prefetcher = Prefetcher(maker, CPU)
    next(prefetcher.batches(parts(1, 2)))
    assert [thread.name for thread in set(threading.enumerate()) - before] == ["batches_0"]
    prefetcher.close()
    assert set(threading.enumerate()) == before


def test_a_training_makes_each_micro_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the next step while a step is under way."""
    made: list[list[Row]] = []
    collate_for = steps.collate_for

    def noted(trainable: Trainable, rows: Part) -> Batch:
        made.append(list(rows))
        return collate_for(trainable, rows)

    monkeypatch.setattr(steps, "collate_for", noted)
    one = trainer(micro_batch=4)
    one.step(1)
    settle(one.prefetcher)
    assert made == [one.rows[0:4], one.rows[4:6], one.rows[6:10], one.rows[10:12]]
    one.step(2)
    one.prefetcher.close()
    assert len(made) == 4
