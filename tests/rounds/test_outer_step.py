"""The outer step against a plain reference, in chunks, over files, across crashes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from orchestrator.adapters.rounds import outer_optimizer as outer
from orchestrator.adapters.rounds.outer_optimizer import Contribution, OuterState, read_header
from orchestrator.adapters.rounds.parameter_files import BLOCK, Vector, size_of
from orchestrator.core.sharing.round_protocol import Kept

Floats = NDArray[np.float32]
COUNT = 3 * BLOCK + 77
RATE, MOMENTUM = 0.7, 0.6


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several chunks, also of these few values; the last one is not whole."""
    monkeypatch.setattr(outer, "CHUNK", BLOCK)


def kept(number: int, attempt: int = 1, values: int = COUNT) -> Kept:
    return Kept(
        attempt=attempt,
        start=0,
        participants=("n1", "n2"),
        round=number,
        step=10 * number,
        values=values,
        shares={number + 1: (0.5, 0.5)},
    )


def packed(values: Floats, compression: str) -> tuple[bytes, Floats]:
    """Bytes, and the values that they say."""
    content = np.zeros(size_of(compression, len(values)), dtype=np.uint8)
    read = Vector(content, compression, len(values)).write(0, values)
    return content.tobytes(), read


def offered(state: OuterState, number: int, node: int, values: Floats, compression: str) -> Floats:
    """A node's part on our disk; the values that it says."""
    content, read = packed(values, compression)
    state.part(number, node).write_bytes(content)
    return read


def close(
    state: OuterState,
    number: int,
    weights: list[float],
    compression: str,
    momentum: float = MOMENTUM,
) -> Floats:
    """Close a round; the values of its update."""
    parts = [
        Contribution(file=state.part(number, node), weight=weight)
        for node, weight in enumerate(weights)
    ]
    state.close(
        kept(number),
        parts,
        {"round": number},
        compression=compression,
        rate=RATE,
        momentum=momentum,
    )
    header, begin = read_header(state.update(number).read_bytes())
    assert header == {"round": number}
    content = np.frombuffer(state.update(number).read_bytes()[begin:], dtype=np.uint8)
    return Vector(content, compression, COUNT).read(0, COUNT)


def changes(seed: int, scale: float = 1.0) -> Floats:
    drawn = np.random.default_rng(seed).standard_normal(COUNT) * scale
    return drawn.astype(np.float32)


@pytest.mark.parametrize("compression", ["none", "bf16", "int8"])
def test_it_is_a_nesterov_step_with_the_weighted_average(tmp_path: Path, compression: str) -> None:
    """Over five rounds; what rounding takes from one update is in the next, so nothing drifts."""
    state = OuterState(tmp_path / "rounds")
    state.begin(kept(0))
    speed = np.zeros(COUNT)
    exact, given_ = np.zeros(COUNT), np.zeros(COUNT)
    for number in range(1, 6):
        parts = [
            offered(state, number, node, changes(10 * number + node), compression)
            for node in range(2)
        ]
        average = (3 * parts[0].astype(float) + parts[1]) / 4
        speed = MOMENTUM * speed + average
        exact -= RATE * (average + MOMENTUM * speed)
        given_ += close(state, number, [0.75, 0.25], compression)
        last_rounding = {"none": 1e-5, "bf16": 0.04, "int8": 0.06}[compression]
        assert np.abs(given_ - exact).max() < last_rounding
    files = sorted(path.name for path in (tmp_path / "rounds").iterdir())
    updates = [f"update-{number}.bin" for number in range(1, 6)]
    lost = ["residual-5.f32"] if compression != "none" else []
    assert files == ["momentum-5.f32", *lost, "state.json", *updates]


def test_small_changes_beside_large_ones_get_through_in_the_end(tmp_path: Path) -> None:
    """Their average is a third of a step of the block's scale: alone it would round to nothing."""
    state = OuterState(tmp_path / "rounds")
    state.begin(kept(0))
    moved = np.zeros(COUNT)
    for number in range(1, 21):
        for node, small in enumerate((1, 0)):
            change = np.full(COUNT, small, dtype=np.float32)
            change[::BLOCK] = 127
            assert np.array_equal(offered(state, number, node, change, "int8"), change)
        moved += close(state, number, [1 / 3, 2 / 3], "int8", momentum=0.0)
    assert moved[1] == pytest.approx(-RATE * 20 / 3, abs=RATE)


@given(
    st.lists(
        st.floats(-1e9, 1e9, width=32) | st.floats(-(2.0**-9), 2.0**-9, width=32),
        min_size=1,
        max_size=2 * BLOCK + 3,
    )
)
@settings(deadline=None, max_examples=40)
def test_int8_is_off_by_half_a_step_of_its_block_at_most(numbers: list[float]) -> None:
    """The scale of a block is its largest value by 127."""
    values = np.array(numbers, dtype=np.float32)
    _, read = packed(values, "int8")
    for start in range(0, len(values), BLOCK):
        block = values[start : start + BLOCK]
        error = np.abs(block.astype(float) - read[start : start + BLOCK]).max()
        assert error <= np.abs(block).max() / 127 * 0.5001 + 1e-27


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 2e9])
@pytest.mark.parametrize("compression", ["none", "bf16", "int8"])
def test_a_part_with_a_number_that_is_none_is_refused(
    tmp_path: Path, compression: str, bad: float
) -> None:
    """One in the middle of the last chunk is enough; so is another size."""
    state = OuterState(tmp_path / "rounds")
    state.begin(kept(0))
    offered(state, 1, 0, changes(1), compression)
    state.check(state.part(1, 0), compression, COUNT)
    content = bytearray(state.part(1, 0).read_bytes())
    value = np.array([bad], dtype=np.float32)
    place = 4 * 3 if compression == "int8" else (COUNT - 5) * (2 if compression == "bf16" else 4)
    raw = value.tobytes()[2:] if compression == "bf16" else value.tobytes()
    content[place : place + len(raw)] = raw
    state.part(1, 0).write_bytes(content)
    with pytest.raises(ValueError, match="not finite"):
        state.check(state.part(1, 0), compression, COUNT)
    state.part(1, 0).write_bytes(content[:-1])
    with pytest.raises(ValueError, match="bytes instead of"):
        state.check(state.part(1, 0), compression, COUNT)


def test_a_crash_before_the_end_of_a_round_leaves_the_round_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next coordinator averages again, from the same state to the same update."""
    state = OuterState(tmp_path / "rounds")
    state.begin(kept(0))
    for number in (1, 2):
        for node in range(2):
            offered(state, number, node, changes(10 * number + node), "int8")
    close(state, 1, [0.5, 0.5], "int8")

    def crash(*_: object) -> None:
        raise OSError("the power went")

    monkeypatch.setattr(OuterState, "_commit", crash)
    with pytest.raises(OSError, match="power"):
        close(state, 2, [0.5, 0.5], "int8")
    monkeypatch.undo()
    monkeypatch.setattr(outer, "CHUNK", BLOCK)
    again = OuterState(tmp_path / "rounds")
    found = again.load()
    assert found is not None
    assert (found.round, found.shares) == (1, {2: (0.5, 0.5)})
    torn = again.update(2).read_bytes()
    close(again, 2, [0.5, 0.5], "int8")
    assert again.update(2).read_bytes() == torn
    assert again.load() == kept(2)


def test_momentum_outlives_an_attempt_that_goes_on_where_it_stood(tmp_path: Path) -> None:
    """From any other step, or for another adapter, it begins anew."""
    for going_on, counts in ((kept(1, attempt=2), True), (kept(0, attempt=2), False)):
        state = OuterState(tmp_path / str(counts))
        state.begin(kept(0))
        offered(state, 1, 0, changes(1), "none")
        close(state, 1, [1.0], "none")
        state.begin(going_on)
        assert state.updates() == []
        found = sorted((tmp_path / str(counts)).glob("momentum-*"))
        assert bool(found) is counts


def test_what_is_no_state_is_none(tmp_path: Path) -> None:
    """A folder of somebody else's, a torn file."""
    state = OuterState(tmp_path)
    assert state.load() is None
    for text in ("", "[]", '{"shares": 3}', '{"shares": {}, "participants": []}'):
        (tmp_path / "state.json").write_text(text)
        assert state.load() is None


def anonymous_kb() -> int:
    """Memory of this process that is no file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.mark.processes
def test_memory_does_not_grow_with_the_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty million values, two nodes: less than half a vector in float32 beside mapped files."""
    monkeypatch.setattr(outer, "CHUNK", 512 * BLOCK)
    values = 20_000_000
    state = OuterState(tmp_path / "rounds")
    state.begin(kept(0, values=values))
    for node in range(2):
        with state.part(1, node).open("wb") as file:
            os.ftruncate(file.fileno(), size_of("int8", values))
    parts = [Contribution(file=state.part(1, node), weight=1.0) for node in range(2)]
    pid = os.fork()
    if pid == 0:  # a process of its own, whose peak is its own
        before = anonymous_kb()
        state.close(kept(1, values=values), parts, {}, compression="int8", rate=1.0, momentum=0.5)
        os._exit(0 if anonymous_kb() - before < 4 * values / 1000 / 2 else 1)
    assert os.waitpid(pid, 0)[1] == 0
