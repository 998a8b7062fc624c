"""What a node says about its files is checked before a byte is written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.store.layout import RunFolder
from orchestrator.core.base.errors import RunFailed
from orchestrator.engine.node.log_stream import BadStream, Spool, rank_of
from orchestrator.parsing.replies.output_listing import parse_listing

GOOD = {"path": "a/b.bin", "bytes": 3, "sha256": "0" * 64}


def listing(**changed: object) -> bytes:
    return json.dumps({"files": [{**GOOD, **changed}]}).encode()


def test_a_listing_is_read() -> None:
    (output,) = parse_listing("n1", listing()).files
    assert (output.path, output.bytes) == ("a/b.bin", 3)


@pytest.mark.parametrize(
    "payload",
    [
        listing(path="../escape"),
        listing(path="/etc/passwd"),
        listing(path="a//b"),
        listing(path="a/./b"),
        listing(path="line\nbreak"),
        listing(path="nul\0"),
        listing(path=7),
        listing(path=""),
        listing(bytes=-1),
        listing(bytes=True),
        listing(bytes="3"),
        listing(sha256=None),
        b"{}",
        b'{"files": 3}',
        b'{"files": [3]}',
        b"\xff\xfe",
        b"[" * 100_000,
        json.dumps({"files": [GOOD] * 50_001}).encode(),
    ],
)
def test_a_listing_that_lies_is_refused(payload: bytes) -> None:
    """Paths that leave the folder, sizes that are none, shapes that are wrong."""
    with pytest.raises(RunFailed, match="list of outputs"):
        parse_listing("n1", payload)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return spool_of(RunFolder(tmp_path / "run"))


def spool_of(folder: RunFolder) -> Spool:
    folder.create()
    return Spool("n1", folder.node_logs("n1"), lambda file: folder.log("n1", file))


@given(data=st.binary(max_size=200), cuts=st.lists(st.integers(0, 200), max_size=12))
def test_a_stream_in_pieces_is_the_stream(
    data: bytes, cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Pieces that overlap, as after a broken link, are stored once; the file is the stream."""
    folder = RunFolder(tmp_path_factory.mktemp("spool") / "run")
    spool = spool_of(folder)
    held = 0
    for cut in [*cuts, len(data)]:
        spool.append("rank-0.out", min(held, cut), data[min(held, cut) : max(held, cut)])
        held = max(held, min(cut, len(data)))
    assert folder.log("n1", "rank-0.out").read_bytes() == data


def test_a_gap_is_refused(spool: Spool) -> None:
    """Missing bytes are an error, never a hole."""
    spool.append("rank-0.out", 0, b"abc")
    with pytest.raises(BadStream, match="bytes 3 to 4 are missing"):
        spool.append("rank-0.out", 4, b"e")


@pytest.mark.parametrize("name", ["../../evil", "/etc/evil", "..", "", "a\0b"])
def test_a_log_with_an_unsafe_name_is_refused(spool: Spool, name: str) -> None:
    with pytest.raises(BadStream, match="sent a log called"):
        spool.append(name, 0, b"x")


@pytest.mark.parametrize(
    "file,rank",
    [("rank-0.jsonl", 0), ("rank-511.jsonl", 511), ("rank-x.jsonl", None), ("launcher.out", None)],
)
def test_the_rank_of_a_report(file: str, rank: int | None) -> None:
    assert rank_of(file) == rank
