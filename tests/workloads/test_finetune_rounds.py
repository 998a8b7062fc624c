"""A node's side of local rounds: bytes that both sides read alike, shares of rows, the exchange."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from finetune.base.settings import Settings
from finetune.base.world import Place, World
from finetune.data.packing import text_example
from finetune.rounds.compression import compress, decompress, digest, from_bytes, to_bytes
from finetune.rounds.exchange import Exchange, ExchangeFailed, packed
from finetune.rounds.exchange_choice import ExchangeChoice, choose_exchange
from finetune.rounds.gradient_sum import OtherNodes
from finetune.rounds.local_rounds import stride_of
from finetune.rounds.round_client import RoundClient, Terms
from finetune.rounds.round_plan import (
    FOR_CHANGES,
    RoundPlan,
    Split,
    steps_in_round,
    without_effect,
)
from finetune.training.checkpoints import agree_on_checkpoint, save_checkpoint
from orchestrator.adapters.rounds.parameter_files import Vector, size_of
from tests.workloads.conftest import WORKLOADS, finetune_workload, node_folder, start_ranks, succeed
from tests.workloads.declared import declared

pytestmark = pytest.mark.slow

ALONE = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
AGREE = Path(__file__).parent / "programs" / "agree.py"


@pytest.mark.parametrize("compression", ["int8", "bf16", "none"])
@pytest.mark.parametrize("count", [1, 255, 256, 1000])
def test_node_and_coordinator_read_the_same_bits(compression: str, count: int) -> None:
    """Whoever wrote them: nodes must end with equal parameters, bit by bit."""
    values = torch.randn(count, generator=torch.Generator().manual_seed(count)) ** 5
    values[count // 2] = 0
    ours = b"".join(bytes(to_bytes(part)) for part in compress(values, compression))
    assert len(ours) == size_of(compression, count)
    read_here = decompress(from_bytes(memoryview(ours), compression, count), compression)
    content = np.frombuffer(bytearray(ours), dtype=np.uint8)
    there = Vector(content, compression, count)
    assert np.array_equal(there.read(0, count), read_here.numpy())
    assert np.array_equal(there.write(0, values.numpy()), read_here.numpy())
    assert torch.equal(decompress(compress(values, compression), compression), read_here)
    with pytest.raises(ValueError, match="bytes instead of"):
        from_bytes(memoryview(ours)[:-1], compression, count)


def rows_of(split: Split, count: int, step: int) -> list[list[int]]:
    """The numbers of the rows that each node has."""
    rows: list[Any] = [(number,) for number in range(count)]
    nodes = range(len(split.shares))
    return [[number for (number,) in split.rows_of(index, rows, step)] for index in nodes]


@given(
    count=st.integers(1, 200),
    nodes=st.lists(st.tuples(st.integers(1, 8), st.floats(0, 10)), min_size=1, max_size=5).filter(
        lambda nodes: sum(weight for _, weight in nodes) > 0.1
    ),
    as_ranks=st.booleans(),
    step=st.integers(1, 10_000),
)
def test_every_row_belongs_to_exactly_one_node(
    count: int, nodes: list[tuple[int, float]], as_ranks: bool, step: int
) -> None:
    """Whatever the shares are, also of nodes that are gone."""
    ranks = [count for count, _ in nodes]
    weights = [float(rank) for rank in ranks] if as_ranks else [weight for _, weight in nodes]
    split = Split(ranks, [weight / sum(weights) for weight in weights])
    parts = rows_of(split, count, step)
    assert sorted(number for part in parts for number in part) == list(range(count))


@given(ranks=st.lists(st.integers(1, 4), min_size=1, max_size=4), times=st.integers(1, 5))
def test_nodes_begin_with_the_rows_that_their_ranks_have_with_collectives(
    ranks: list[int], times: int
) -> None:
    """Rank r of all has the rows r, r + ranks, ...: the node's ranks divide its rows like that."""
    total = sum(ranks)
    count = total * times
    split = Split(ranks, [rank / total for rank in ranks])
    parts = rows_of(split, count, step=7)
    first = 0
    for node, part in zip(ranks, parts, strict=True):
        for local in range(node):
            assert part[local::node] == list(range(first + local, count, total))
        first += node


@given(counts=st.lists(st.integers(1, 50), min_size=1, max_size=6))
def test_nodes_stride_so_that_their_average_moves_as_far_and_as_noisily_as_all_rows_would(
    counts: list[int],
) -> None:
    """Where noise prevails Adam's step is the root of the part of the rows: see `stride_of`."""
    whole = sum(counts)
    strides = [stride_of(declared(Settings).inner_scaling, count, whole) for count in counts]
    parts = [count / whole for count in counts]
    along = sum(p * stride * p**0.5 for p, stride in zip(parts, strides, strict=True))
    variance = sum(p**2 * stride**2 for p, stride in zip(parts, strides, strict=True))
    assert (along, variance) == (pytest.approx(1), pytest.approx(1))
    assert stride_of("none", 1, whole) == 1


@pytest.mark.parametrize("setting", ["changes", "gradients"])
def test_what_is_set_is_not_measured(setting: str) -> None:
    trainer: Any = SimpleNamespace(settings=declared(Settings, round_exchange=setting), world=ALONE)

    assert choose_exchange(trainer, 0) == ExchangeChoice(setting)


def test_what_an_exchange_costs_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The node gives its step and a sample of its gradient; the answer comes behind the sample."""
    monkeypatch.setenv("ORCHESTRATE_EXCHANGE_DIR", str(tmp_path))
    trainer: Any = SimpleNamespace(
        settings=declared(Settings, steps=40),
        world=ALONE,
        measure_step=lambda: 0.5,
        buffer=torch.ones(2_000_001),
    )
    (tmp_path / "in" / "rank-0").mkdir(parents=True)
    feed(tmp_path, 0, {"type": "sample"}, [1.0])
    answer = {"type": "exchange", "exchanged": "changes", "exchange_s": 2.0, "step_s": 0.75}
    feed(tmp_path, 0, answer)

    chosen = choose_exchange(trainer, 4)

    assert chosen == ExchangeChoice("changes", "an exchange takes 2 s, a step 0.75 s")
    asked = json.loads((tmp_path / "exchange-0.jsonl").read_text())
    assert (asked["type"], asked["step_s"], asked["steps"]) == ("trial", 0.5, 36)
    assert (asked["values"], asked["bytes"] // 1_000_000) == (2_000_001, 4)
    assert not list((tmp_path / "out").iterdir())


def test_what_is_for_changes_alone_is_told_where_gradients_are_summed() -> None:
    assert without_effect(declared(Settings)) == []
    given = declared(Settings, outer_momentum=0.9, round_steps=20, steps=7)
    assert without_effect(given) == ["outer_momentum=0.9", "round_steps=20"]


def test_the_rules_for_gradients_are_about_all_that_is_for_changes_alone() -> None:
    """Whoever asks for gradients by name is refused before anything is contacted."""
    ruled = {
        condition.parameter
        for rule in finetune_workload().rules
        for condition in rule.require
        if any(when.any_of == ("gradients",) for when in rule.when)
    }
    assert ruled == set(FOR_CHANGES)
    declared_defaults = finetune_workload().parameters
    assert {name: declared_defaults[name].default for name in ruled} == FOR_CHANGES


def test_large_adapters_have_longer_rounds() -> None:
    """Unless the setting says how long."""
    assert steps_in_round("auto", 116_736) == 5
    assert steps_in_round("auto", 161_480_704) == 10
    assert steps_in_round(7, 161_480_704) == 7


@given(steps=st.integers(1, 200), every=st.integers(1, 60), other=st.integers(0, 70))
def test_each_step_is_in_one_round(steps: int, every: int, other: int) -> None:
    """Rounds end where they should, and what is done every so often falls to the round's end that
    comes next.
    """
    plan = RoundPlan(steps, every)
    rounds = [plan.after(step) for step in range(steps)]
    assert rounds == sorted(rounds)
    assert set(rounds) == set(range(1, plan.last + 1))
    ends = {step + 1 for step in range(steps) if plan.after(step + 1) != plan.after(step)}
    assert [plan.end_of(number) for number in range(1, plan.last + 1)] == sorted(ends)
    due = {number for number in range(1, plan.last + 1) if plan.is_due(number, other)}
    wanted = {plan.after(step - 1) for step in range(other, steps + 1, other)} if other else set()
    assert due == wanted | {plan.last}


@examples(max_examples=20)
@given(st.floats(0.05, 0.95))
def test_on_average_a_node_gets_exactly_its_share(share: float) -> None:
    """Also of 12 rows, of which a quarter and a bit is no whole number."""
    split = Split([1, 1], [share, 1 - share])
    got = sum(len(rows_of(split, 12, step)[0]) for step in range(1, 301))
    assert got / 300 == pytest.approx(12 * share, abs=0.05)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RoundClient:
    """The first of two nodes, which have begun to sum gradients; feeds are files of the test."""
    monkeypatch.setenv("ORCHESTRATE_EXCHANGE_DIR", str(tmp_path))
    trainer: Any = SimpleNamespace(
        settings=declared(Settings, steps=4), rows_per_step=4, world=ALONE
    )
    terms = Terms(
        exchanged="gradients", training="e" * 64, round_steps=1, values=4, compression="none"
    )
    recorder: Any = SimpleNamespace(speaks=True)
    client = RoundClient(trainer, recorder, Place(0, 2), terms)
    half = {str(number): [0.5, 0.5] for number in (1, 2)}
    start = {
        "type": "start",
        "step": 0,
        "needs": False,
        "offer": False,
        "reports": 1,
        "ranks": [1, 1],
    }
    (tmp_path / "in" / "rank-0").mkdir(parents=True)
    feed(tmp_path, 1, {**start, "shares": half})
    assert client.begin(0, torch.zeros(12))[0] == 0
    return client


def feed(folder: Path, number: int, header: dict[str, Any], values: Any = None) -> None:
    """Give rank 0 words, or an update."""
    inbox = folder / "in" / "rank-0"
    if values is None:
        (inbox / f"{number:08d}.json").write_text(json.dumps(header))
    else:
        content = [to_bytes(torch.tensor(values, dtype=torch.float32))]
        (inbox / f"{number:08d}.bin").write_bytes(b"".join(packed(header, content)))


def summed(included: list[int], targets: int) -> dict[str, Any]:
    """The header of an update."""
    curve = [{"step": 1, "loss": 1.0, "targets": targets, "tokens": 9, "seconds": 0.1}]
    return {"included": included, "reports": 1, "compression": "none", "curve": curve}


# Rows of 1, 2, 3 and 4 targets: rank 0 has the first and third.
ROWS = [(text_example([7], [5] * targets),) for targets in (1, 2, 3, 4)]


def test_a_node_offers_its_part_and_takes_the_sum(client: RoundClient, tmp_path: Path) -> None:
    """The part travels as it is; what the coordinator says takes its place."""
    others = OtherNodes(client, 1, ROWS, ALONE)
    assert others.mine == [ROWS[0], ROWS[2]]
    feed(tmp_path, 3, summed([0, 1], targets=10), [1.0, 2.0, 3.0, 0.75])
    buffer = torch.tensor([0.1, 0.2, 0.3, 0.25])
    others.add(buffer)
    assert buffer.tolist() == [1.0, 2.0, 3.0, 0.75]
    _, told = map(json.loads, (tmp_path / "exchange-0.jsonl").read_text().splitlines())
    assert (told["type"], told["round"], told["rows"]) == ("part", 1, 2)
    (step,) = told["curve"]
    # 0.25 is its share of a mean over ten targets, of which it has four.
    assert (step["targets"], step["loss"]) == (4, pytest.approx(0.625))
    assert told["sha256"] == digest(torch.tensor([0.1, 0.2, 0.3, 0.25]))
    assert not list((tmp_path / "out").iterdir()), "nobody asks for it any more"


def test_a_node_that_the_others_went_on_without_takes_their_step(
    client: RoundClient, tmp_path: Path
) -> None:
    """It computes nothing; the others' sum is scaled up to all targets, here as there."""
    feed(tmp_path, 3, summed([1], targets=6), [6.0, 0.6, 0.0, 3.0])
    others = OtherNodes(client, 1, ROWS, ALONE)
    assert not others.mine
    buffer = torch.zeros(4)
    others.add(buffer)
    assert buffer.tolist() == pytest.approx([10.0, 1.0, 0.0, 5.0])
    assert not (tmp_path / "out").exists()


def test_files_and_words_come_and_go(tmp_path: Path) -> None:
    """What is offered is announced with its digest; what comes is taken in the order of numbers."""
    street = Exchange(tmp_path, 3)
    street.offer("part-1.bin", [b"ab", b"c"], {"type": "part"})
    line = json.loads((tmp_path / "exchange-3.jsonl").read_text())
    assert line == {
        "type": "part",
        "name": "part-1.bin",
        "bytes": 3,
        "sha256": hashlib.sha256(b"abc").hexdigest(),
    }
    assert (tmp_path / "out" / "part-1.bin").read_bytes() == b"abc"
    street.withdraw("part-1.bin")
    assert not list((tmp_path / "out").iterdir())

    inbox = tmp_path / "in" / "rank-3"
    inbox.mkdir(parents=True)
    assert not street.has(1)
    (inbox / "00000001.json").write_text('{"type": "start"}')
    (inbox / "00000002.bin").write_bytes(b"".join(packed({"round": 1}, [b"values"])))
    (inbox / "00000003.json").write_text('{"type": "over", "why": "no more nodes"}')
    assert street.has(1)
    assert street.take(1, 5).header == {"type": "start"}
    update = street.take(2, 5)
    assert (update.header, bytes(update.content)) == ({"round": 1}, b"values")
    with pytest.raises(ExchangeFailed, match="no more nodes"):
        street.take(3, 5)
    assert not list(inbox.iterdir())
    with pytest.raises(ExchangeFailed, match="nothing from the coordinator"):
        street.take(4, 0.05)

    def full() -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        street.take(4, 5, full)


def test_a_checkpoint_of_local_rounds_continues_with_collectives_from_one_state(
    tmp_path: Path,
) -> None:
    """Optimisers of nodes that trained by themselves differ: all go on with the first one's."""
    for rank in range(2):
        save_checkpoint(tmp_path / f"node-{rank}", 8, {"value": rank}, "training", own=True)
    (run,) = start_ranks([node_folder(tmp_path / "run")], 2, AGREE, str(WORKLOADS), str(tmp_path))
    lines = succeed(run).splitlines()
    assert sorted(lines) == [f"rank {rank} has {{'value': 0}}" for rank in range(2)]
    assert agree_on_checkpoint(tmp_path / "node-1", "training", ALONE) == {"value": 1}
