"""A node's side of local rounds: bytes that both sides read alike, shares of rows, the exchange."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressed import compress, decompress, from_bytes, to_bytes
from exchange import Exchange, ExchangeFailed, packed
from orchestrator.edges.rounds.values import Vector, size_of
from resumable import agree_on_checkpoint, save_checkpoint
from round_plan import RoundPlan, share_of
from tests.workloads.conftest import FINETUNE, node_folder, start_ranks, succeed
from world import World

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


@given(
    count=st.integers(1, 200),
    weights=st.lists(st.floats(0, 10), min_size=1, max_size=5).filter(lambda w: sum(w) > 0.1),
    step=st.integers(1, 10_000),
)
def test_every_row_belongs_to_exactly_one_node(count: int, weights: list[float], step: int) -> None:
    """Whatever the shares are, also of nodes that are gone."""
    shares = [weight / sum(weights) for weight in weights]
    rows = [(number,) for number in range(count)]
    parts = [share_of(rows, shares, index, step) for index in range(len(shares))]  # type: ignore[arg-type]
    assert [row for part in parts for row in part] == rows


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


@settings(max_examples=20)
@given(st.floats(0.05, 0.95))
def test_on_average_a_node_gets_exactly_its_share(share: float) -> None:
    """Also of 12 rows, of which a quarter and a bit is no whole number."""
    rows = [(number,) for number in range(12)]
    got = sum(len(share_of(rows, [share, 1 - share], 0, step)) for step in range(1, 301))  # type: ignore[arg-type]
    assert got / 300 == pytest.approx(12 * share, abs=0.05)


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
    (run,) = start_ranks([node_folder(tmp_path / "run")], 2, AGREE, str(FINETUNE), str(tmp_path))
    lines = succeed(run).splitlines()
    assert sorted(lines) == [f"rank {rank} has {{'value': 0}}" for rank in range(2)]
    alone = World(rank=0, local_rank=0, size=1, device=torch.device("cpu"))
    assert agree_on_checkpoint(tmp_path / "node-1", "training", alone) == {"value": 1}
