"""Log lines: any bytes in any portions become harmless, bounded, complete lines."""

from __future__ import annotations

import itertools
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.parsing.replies.display_text import LineDecoder, clean_line
from orchestrator.view.terminal import log_lines
from orchestrator.view.terminal.log_lines import (
    FoldedLogLines,
    LogLines,
    parse_ranks,
    source_of,
)
from orchestrator.view.terminal.text import TIMES

HOSTILE = [
    b"\x1b[2J\x1b[1;1Hgone",
    b"\x1b]0;title\x07text",
    b"\x1b]52;c;cGF5bG9hZA==\x1b\\text",
    b"\x1bP1$r0m\x1b\\text",
    b"\x9b31mtext",
    "\u202etxet\u2066".encode(),
    b"a\x08b\x00c\x7f",
    b"\x1b",
    b"\x1b[",
    b"\xff\xfe\xed\xa0\x80",
]


def split_at(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 400), max_size=12))
def test_portions_do_not_matter(data: bytes, cuts: list[int]) -> None:
    """However the bytes arrive, the lines are those of the whole."""
    whole = LineDecoder()
    expected = [*whole.feed(data), *whole.finish()]
    decoder = LineDecoder()
    lines = [line for part in split_at(data, cuts) for line in decoder.feed(part)]
    assert [*lines, *decoder.finish()] == expected


@given(st.lists(st.one_of(st.binary(max_size=40), st.sampled_from(HOSTILE)), max_size=8))
def test_nothing_that_steers_a_terminal_survives(parts: list[bytes]) -> None:
    """No control, no escape, no direction override is ever shown."""
    decoder = LineDecoder()
    for line in [*decoder.feed(b"".join(parts)), *decoder.finish()]:
        assert not [c for c in line if unicodedata.category(c) in {"Cc", "Cs", "Zl", "Zp"}]
        assert not re.search("[\u202a-\u202e\u2066-\u2069]", line)


@pytest.mark.parametrize("text", ["grüße 日本語 🙂", "a\tb", "100%|████| 3/3"])
def test_readable_text_survives(text: str) -> None:
    """What people write stays, tabs as spaces."""
    assert clean_line(text) == text.expandtabs(8)


def test_carriage_returns_end_lines() -> None:
    """A progress bar's redraws are lines; ``\\r\\n`` is one end, also across portions."""
    decoder = LineDecoder()
    assert decoder.feed(b" 10%\r 20%\r") == [" 10%", " 20%"]
    assert decoder.feed(b"\nnext\r") == ["next"]
    assert decoder.feed(b"\r\nlast") == [""]
    assert decoder.finish() == ["last"]


def test_long_lines_are_cut_with_a_mark_and_do_not_fill_memory() -> None:
    """Megabytes without a line end keep only the beginning and the count."""
    decoder = LineDecoder(limit=10)
    for _ in range(100):
        assert decoder.feed(b"x" * 10_000) == []
    assert len(decoder._kept) <= 20
    assert decoder.feed(b"\nshort\n") == ["x" * 10 + "… (+999990 characters)", "short"]


def test_sources_of_files() -> None:
    """Rank and launcher files are logs; other names are not."""
    rank = source_of("n", "rank-12.err")
    assert rank is not None
    assert (rank.rank, rank.stream, rank.tag) == (12, "err", "n/12")
    launcher = source_of("n", "launcher.out")
    assert launcher is not None
    assert (launcher.rank, launcher.tag) == (None, "n/launcher")
    assert source_of("n", "notes.txt") is None


def test_lines_are_prefixed_and_streams_do_not_mix() -> None:
    """Each stream has its own unfinished line; the tag names node and rank."""
    out: list[str] = []
    lines = LogLines(out.extend)
    lines.feed("a", "rank-0.out", b"one ")
    lines.feed("b", "rank-1.out", b"two\n")
    lines.feed("a", "rank-0.out", b"line\nrest")
    lines.finish()
    assert out == ["[b/1] two", "[a/0] one line", "[a/0] rest"]


def test_selection_grep_and_colour() -> None:
    """Unwanted sources and lines are left out; a colour belongs to a node."""
    out: list[str] = []
    lines = LogLines(
        out.extend, color=True, wanted=lambda s: s.stream == "err", grep=re.compile("keep")
    )
    lines.feed("a", "rank-0.out", b"keep\n")
    lines.feed("a", "rank-0.err", b"keep 1\ndrop\n")
    lines.feed("b", "rank-1.err", b"keep 2\n")
    lines.feed("a", "rank-2.err", b"keep 3\n")
    colours = [line.partition("[a")[0].partition("[b")[0] for line in out]
    assert [line.rpartition("m ")[2] for line in out] == ["keep 1", "keep 2", "keep 3"]
    assert colours[0] == colours[2] != colours[1]


def test_folding_merges_equal_lines_and_counts_occurrences() -> None:
    """Nothing is lost: sixty-three equal lines become one with its count, repeats stay repeats."""
    out: list[str] = []
    lines = FoldedLogLines(out.extend)
    for rank in range(63):
        own = b"only here\n" if rank == 7 else b""
        lines.feed(f"n{rank // 8}", f"rank-{rank}.out", b"same\n" + own + b"same\n")
    lines.feed("n0", "launcher.err", b"same\n")
    lines.finish()
    assert out == [f"[{TIMES}64 ranks] same", f"[{TIMES}63 ranks] same", "[n0/7] only here"]


def test_folding_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many different lines are shown before the end rather than kept."""
    monkeypatch.setattr(log_lines, "FOLD_LIMIT", 10)
    out: list[str] = []
    lines = FoldedLogLines(out.extend)
    lines.feed("n", "rank-0.out", b"".join(b"%d\n" % n for n in range(25)))
    lines.feed("n", "rank-0.out", b"x\n")
    assert len(out) >= 20
    lines.finish()
    assert len(out) == 26


def test_rank_lists() -> None:
    """Numbers and ranges; everything else is an error that names the part."""
    assert parse_ranks("0, 8-10") == {0, 8, 9, 10}
    for bad in ["", "a", "3-1", "0-999999999", "1,,2"]:
        with pytest.raises(ValueError, match="not a"):
            parse_ranks(bad)
